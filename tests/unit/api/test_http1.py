"""Reading answers: lengths, chunks, ends; and quoting."""

from __future__ import annotations

import io

import pytest

from swarm.api.http1 import Answer, quoted


def answer(head: str, body: bytes = b"") -> Answer:
    raw = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body
    return Answer(io.BufferedReader(io.BytesIO(raw)))


def test_a_body_of_known_length_ends_there():
    got = answer("HTTP/1.1 200 OK\nContent-Length: 5", b"helloHTTP/1.1")
    assert (got.status, got.read(), got.read1(9), got.will_close) == (200, b"hello", b"", False)


def test_chunks_are_joined_and_trailers_skipped():
    body = b"3\r\nabc\r\n4;x=y\r\nde\nf\r\n0\r\nTrailer: t\r\n\r\n"
    got = answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", body)
    assert got.readline(100) == b"abcde\n"
    assert got.readline(100) == b"f"
    assert got.readline(100) == b""
    assert not got.will_close


def test_without_a_length_the_body_ends_with_the_connection():
    got = answer("HTTP/1.1 200 OK", b"all of it")
    assert (got.read(), got.will_close) == (b"all of it", True)


def test_no_content_has_no_body():
    assert answer("HTTP/1.1 204 No Content", b"HTTP/1.1 200 OK").read() == b""


def test_interim_answers_are_skipped():
    assert answer("HTTP/1.1 100 Continue\n\nHTTP/1.1 404 Not Found\nContent-Length: 0").status == 404


def test_a_line_is_bounded():
    got = answer("HTTP/1.1 200 OK\nContent-Length: 6", b"abcdef")
    assert [got.readline(4), got.readline(4)] == [b"abcd", b"ef"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 9", b"short"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"9\r\nshort"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nshort\r\n"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n"),
    ],
)
def test_an_answer_that_ends_early_never_looks_whole(head: str, body: bytes):
    with pytest.raises(ConnectionError):
        answer(head, body).read()


@pytest.mark.parametrize("head", ["", "SSH-2.0-x", "HTTP/1.1 odd"])
def test_what_is_not_http_is_refused(head: str):
    with pytest.raises(ConnectionError):
        answer(head)


def test_quoting():
    assert quoted("a b/c?ü") == "a%20b%2Fc%3F%C3%BC"
    assert quoted("/services/web", safe=b"/") == "/services/web"
