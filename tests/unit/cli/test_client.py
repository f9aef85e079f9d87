"""The HTTP client: reuse of its connection, errors, and streams."""

from __future__ import annotations

import io

import pytest

from swarm.api.client import ApiError, Client, read_frames, socket_path
from swarm.base.errors import InvalidArgument
from tests.fakes.fake_api import FakeApi, Raw, frame


def test_requests_share_a_connection_and_streams_do_not(host: str) -> None:
    with Client(host) as client:
        client.get("/info")
        kept = client._kept
        with client.stream("GET", "/services/web/logs") as answer:
            client.get("/info")
            assert next(read_frames(answer))[0] == 1
        client.get("/version")
        assert client._kept is kept


def test_query_values(host: str, api: FakeApi) -> None:
    with Client(host) as client:
        client.get("/nodes", a=True, b=False, c=None, d=3, filters={"name": ["x y"]})
    assert api.requests[-1].query == {"a": "1", "b": "0", "d": "3", "filters": '{"name": ["x y"]}'}


def test_names_are_quoted_into_the_path(host: str, api: FakeApi) -> None:
    with Client(host) as client, pytest.raises(ApiError):
        client.get("/services/a b?c")
    assert api.requests[-1].path == "/services/a%20b%3Fc"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {"message": "boom"}), "Error response from daemon: boom"),
        ((502, None), "Error response from daemon: the daemon answered 502 without a reason"),
        ((500, ["odd"]), 'Error response from daemon: ["odd"]'),
    ],
)
def test_refusals(host: str, api: FakeApi, answer: object, message: str) -> None:
    api.routes = {"GET /x": answer}
    with Client(host) as client, pytest.raises(ApiError) as caught:
        client.get("/x")
    assert str(caught.value) == message


def test_a_stream_is_refused_before_its_first_byte(host: str) -> None:
    with (
        Client(host) as client,
        pytest.raises(ApiError, match="page not found"),
        client.stream("GET", "/none"),
    ):
        pytest.fail("no stream should open")


def test_frames_may_come_in_pieces(host: str, api: FakeApi) -> None:
    record = frame(2, "hello\n") + frame(1, "")
    api.routes = {"GET /logs": Raw([record[:3], record[3:10], record[10:]])}
    with Client(host) as client, client.stream("GET", "/logs") as answer:
        assert list(read_frames(answer)) == [(2, b"hello\n"), (1, b"")]


def test_a_body_is_streamed_in_chunks(host: str, api: FakeApi) -> None:
    with Client(host) as client:
        list(client.json_lines("POST", "/images/load", io.BytesIO(b"y" * 100_000)))
    assert api.requests[-1].body == b"y" * 100_000


def test_hosts() -> None:
    assert socket_path("unix:///a/b") == "/a/b"
    assert socket_path("/a/b") == "/a/b"
    with pytest.raises(InvalidArgument, match="only unix"):
        socket_path("tcp://1.2.3.4:5")
