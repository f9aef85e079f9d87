from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.option_rules import check_service_options
from swarm.model.options import service_options
from swarm.model.port_options import PortName, PortOptions
from swarm.model.specs import ServiceSpec
from swarm.model.types import EndpointSpec, PortConfig, Protocol, PublishMode


def spec(labels: dict[str, str], *ports: PortConfig) -> ServiceSpec:
    return ServiceSpec(name="web", labels=labels, endpoint_spec=EndpointSpec(ports=ports))


def test_the_protocol_may_be_left_out() -> None:
    labels = {"swarm.port.8080.source": "preserve", "swarm.port.53/udp.source": "masquerade"}
    assert service_options(labels).ports == {
        PortName(Protocol.TCP, 8080): PortOptions(preserves_source=True, given=("source",)),
        PortName(Protocol.UDP, 53): PortOptions(given=("source",)),
    }


def test_a_port_has_several_options() -> None:
    labels = {"swarm.port.8080.proxy-protocol": "v2", "swarm.port.8080/tcp.source": "masquerade"}
    options = PortOptions(proxy_protocol=True, given=("proxy-protocol", "source"))
    assert service_options(labels).ports == {PortName(Protocol.TCP, 8080): options}
    check_service_options(spec(labels, PortConfig(published_port=8080, target_port=80)))


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("swarm.port.8080.source", "keep", "expected preserve or masquerade"),
        ("swarm.port.8080.sauce", "preserve", r"unknown option label swarm\.port\.8080\.sauce"),
        ("swarm.port.8080.proxy-protocol", "v1", "expected v2 or none"),
        ("swarm.port.http.source", "preserve", "unknown option label"),
        ("swarm.port.8080/icmp.source", "preserve", "unknown option label"),
    ],
)
def test_what_cannot_be_meant_is_refused(label: str, value: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        service_options({label: value})


def test_an_option_needs_its_port_in_ingress_mode() -> None:
    labels = {"swarm.port.8080.source": "preserve"}
    published = PortConfig(published_port=8080, target_port=80)
    check_service_options(spec(labels, published))
    others = (
        PortConfig(published_port=8081, target_port=80),
        PortConfig(published_port=8080, target_port=80, protocol=Protocol.UDP),
        PortConfig(published_port=8080, target_port=80, publish_mode=PublishMode.HOST),
    )
    for other in others:
        with pytest.raises(InvalidArgument, match="source of port 8080/tcp: the service does not publish"):
            check_service_options(spec(labels, other))


def test_the_proxy_protocol_is_for_tcp_and_not_beside_kept_addresses() -> None:
    udp = PortConfig(published_port=53, target_port=53, protocol=Protocol.UDP)
    with pytest.raises(InvalidArgument, match="proxy-protocol of port 53/udp: it is for TCP only"):
        check_service_options(spec({"swarm.port.53/udp.proxy-protocol": "v2"}, udp))
    both = {"swarm.port.8080.source": "preserve", "swarm.port.8080.proxy-protocol": "v2"}
    with pytest.raises(InvalidArgument, match=r"proxy-protocol of port 8080/tcp: .* source=preserve"):
        check_service_options(spec(both, PortConfig(published_port=8080, target_port=80)))
    in_host_mode = PortConfig(published_port=80, target_port=80, publish_mode=PublishMode.HOST)
    with pytest.raises(InvalidArgument, match="proxy-protocol of port 80/tcp: the service does not publish"):
        check_service_options(spec({"swarm.port.80.proxy-protocol": "v2"}, in_host_mode))
