"""What a container gets of its secrets and configs: files, variables, and templates expanded for its task."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.base.errors import Fatal, InvalidArgument, Temporary
from swarm.model.objects import Payload, Task
from swarm.model.payload_rules import check_references
from swarm.model.specs import ConfigReference, ContainerSpec, FileTarget, SecretReference, TaskSpec
from swarm.model.task_template import EXAMPLE
from swarm.worker.payloads import Payloads
from swarm.worker.secret_driver import SecretDrivers

DB = SecretReference(secret_id="s1", secret_name="db_pass", file=FileTarget(name="password"), version=2)
KEY = SecretReference(secret_id="s2", secret_name="key", file=FileTarget(name="env:API_KEY"), version=1)
SITE = ConfigReference(config_id="c1", config_name="site", file=FileTarget(name="/etc/site"), version=1)
SPEC = ContainerSpec(secrets=(DB, KEY), configs=(SITE,), env=("ZONE=north",))


DRIVERS = SecretDrivers(Path("/nowhere"))


def told(site=b"plain", *, is_template=True, secret=b"hunter2"):
    known = Payloads(DRIVERS)
    items = (
        Payload(id="s1.2", data=secret),
        Payload(id="s2.1", data=b"k3y"),
        Payload(id="c1.1", data=site, is_template=is_template),
    )
    known.hold({item.id: item for item in items})
    return known


async def site_of(template, **options):
    return (await told(template, **options).delivery(SPEC, EXAMPLE)).files[-1].data


async def test_files_and_variables():
    found = await told().delivery(SPEC, EXAMPLE)
    assert [(f.target, f.data) for f in found.files] == [
        ("/run/secrets/password", b"hunter2"),
        ("/etc/site", b"plain"),
    ]
    assert found.env == ("API_KEY=k3y",)
    assert "hunter2" not in repr(found)
    assert "k3y" not in repr(found)


def test_before_a_manager_has_told_anything_it_waits_and_then_it_must_be_there():
    task = Task(id="t", spec=TaskSpec(container_spec=SPEC))
    with pytest.raises(Temporary, match="waiting for a manager to send secret db_pass"):
        Payloads(DRIVERS).check(task)
    known = Payloads(DRIVERS)
    known.hold({})
    with pytest.raises(Fatal, match="secret not found: db_pass"):
        known.check(task)


async def test_a_template_names_what_its_task_references_by_target_or_name():
    text = (
        b'{{ secret "password" }}|{{ secret "db_pass" }}|{{ secret "key" }}|{{ env "ZONE" }}|{{ env "NO" }}|'
        b"{{ .Service.Name }}.{{ .Task.Slot }}@{{ .Node.Hostname }}"
    )
    assert await site_of(text) == b"hunter2|hunter2|k3y|north||service.1@node"


async def test_what_is_no_template_comes_as_it_is():
    assert await site_of(b'{{ secret "password" }}', is_template=False) == b'{{ secret "password" }}'


async def test_bytes_that_are_no_text_come_through():
    assert await site_of(b'a{{ secret "password" }}\x00', secret=b"\xfe\x80") == b"a\xfe\x80\x00"


async def test_what_a_template_puts_in_is_not_expanded_again():
    assert await site_of(b'{{ secret "password" }}', secret=b'{{ secret "key" }}') == b'{{ secret "key" }}'


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (b'{{ secret "other" }}', "expanding config site failed: secret target other not found"),
        (b'{{ config "other" }}', "expanding config site failed: config target other not found"),
        (b"\xff", "expanding config site failed: the template is not valid"),
        (b"{{ .Task.Nope }}", "expanding config site failed: the template is not valid at line 1"),
        (
            b'a\n{{ index (secret "password") 99 }}',
            "expanding config site failed: the template is not valid at line 2",
        ),
        (
            b'{{ $x := "aaaaaaaaaa" }}' + b'{{ $x = printf "%s%s%s%s" $x $x $x $x }}' * 40,
            "expanding config site failed: the template is not valid",
        ),
        (
            b"{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}",
            "expanding config site failed: the template is not valid",
        ),
    ],
)
async def test_what_fails_says_where_and_never_what(template, complaint):
    with pytest.raises(InvalidArgument) as refused:
        await site_of(template)
    assert str(refused.value) == complaint
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("data", [b"\xff", b"a\0b"])
async def test_a_variable_holds_text_only(data):
    known = told()
    known.hold({**known._known, "s2.1": Payload(id="s2.1", data=data)})
    with pytest.raises(Fatal, match=r"secret key is not a text: it cannot be a variable \(API_KEY\)"):
        await known.delivery(SPEC, EXAMPLE)


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        ("1A", "invalid name of a variable '1A'"),
        ("A=B", "invalid name of a variable 'A=B'"),
        ("", "invalid name of a variable ''"),
        ("ZONE", "the variable ZONE is set already"),
    ],
)
def test_variables_that_cannot_be(variable, complaint):
    reference = SecretReference(secret_id="i", secret_name="n", file=FileTarget(name=f"env:{variable}"))
    with pytest.raises(InvalidArgument, match=complaint):
        check_references(ContainerSpec(secrets=(reference,), env=("ZONE=north",)))
