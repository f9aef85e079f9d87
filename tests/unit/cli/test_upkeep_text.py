"""`system info` as a person reads it."""

from __future__ import annotations

from swarm.cli.upkeep_text import report_text

REPORT = {
    "Store": {
        "State": "ALARM",
        "Message": "it is full",
        "External": False,
        "EtcdVersion": "3.4.23",
        "EtcdSupport": "tolerated",
        "QuotaBytes": 2 << 30,
        "Members": [
            {
                "NodeID": "n1",
                "Hostname": "h1",
                "Address": "10.0.0.1:2381",
                "Role": "leader",
                "Reachable": True,
                "State": "ALARM",
                "Message": "",
                "Version": "3.4.23",
                "SizeBytes": 1 << 20,
                "UsedBytes": 1,
            },
            {
                "NodeID": "n2",
                "Hostname": "",
                "Address": "10.0.0.2:2381",
                "Role": "voter",
                "Reachable": False,
                "State": "",
                "Message": "",
                "Version": "",
                "SizeBytes": 0,
                "UsedBytes": 0,
            },
        ],
    },
    "Runtime": {"Name": "crun", "Path": "/usr/bin/crun", "Reason": "it runs", "CgroupMode": "v2"},
    "Capabilities": [{"Name": "vxlan", "Present": True, "Note": "overlay networks"}],
    "CertificateExpires": "2027-01-01T00:00:00Z",
}


def test_a_manager():
    assert report_text(REPORT) == (
        "Store: ALARM\n"
        " Reason: it is full\n"
        " Version: etcd 3.4.23 (tolerated)\n"
        " Quota: 2GiB\n"
        " Members:\n"
        "  NODE      ADDRESS         ROLE      REACHABLE   STATE     SIZE      VERSION\n"
        "  h1        10.0.0.1:2381   leader    yes         ALARM     1MiB      3.4.23\n"
        "  n2        10.0.0.2:2381   voter     no          -         -         -\n"
        "Runtime: crun (/usr/bin/crun)\n"
        " Reason: it runs\n"
        " Cgroups: v2\n"
        "Network:\n"
        " vxlan: yes (overlay networks)\n"
        "Certificate expires: 2027-01-01T00:00:00Z\n"
    )


def test_a_worker_has_no_store():
    text = report_text(REPORT | {"Store": None, "CertificateExpires": None})
    assert text.startswith("Store: none (this node is not a manager)\nRuntime: crun")
    assert "Certificate" not in text
