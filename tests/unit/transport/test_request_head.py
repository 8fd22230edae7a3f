"""The head of a request: what every server reads alike is parsed, all else is refused."""

from __future__ import annotations

import pytest
from lastcall.transport.http.request_head import BadHead, is_decided, parse_head

HOST = b"Host: test\r\n"


def head(*lines: bytes, first: bytes = b"POST /a?b=c HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, b"Host: test", *lines, b""))


def test_a_head_is_parsed() -> None:
    parsed = parse_head(head(b"X-One: 1 ", b"x-two:\t2") + b"a body")
    assert parsed is not None
    assert (parsed.method, parsed.target, parsed.path, parsed.version) == (b"POST", b"/a?b=c", b"/a", (1, 1))
    assert parsed.fields == ((b"host", b"test"), (b"x-one", b"1"), (b"x-two", b"2"))
    assert not parsed.has_body
    assert not parsed.wants_websocket


@pytest.mark.parametrize(
    ("line", "has_body"),
    [(b"Content-Length: 5", True), (b"Content-Length: 0", False), (b"Transfer-Encoding: Chunked", True)],
)
def test_a_length_says_whether_there_is_a_body(line: bytes, has_body: bool) -> None:
    parsed = parse_head(head(line, first=b"GET / HTTP/1.1"))
    assert parsed is not None
    assert parsed.has_body is has_body


@pytest.mark.parametrize("value", [b"websocket", b"WebSocket", b"h2c, websocket"])
def test_an_upgrade_is_found_in_the_head_alone(value: bytes) -> None:
    parsed = parse_head(head(b"Upgrade: " + value))
    assert parsed is not None
    assert parsed.wants_websocket
    body = parse_head(head(b"Content-Length: 20") + b"upgrade: " + value + b"\r\n\r\n")
    assert body is not None
    assert not body.wants_websocket


@pytest.mark.parametrize(
    ("target", "path_and_query"),
    [
        (b"http://test/a?b=c", b"/a?b=c"),
        (b"HTTPS://TEST/", b"/"),
        (b"http://test", b"/"),
        (b"http://test?b=c", b"/?b=c"),
        (b"/http://test/a", b"/http://test/a"),
        (b"*", b"*"),
    ],
)
def test_a_target_may_be_a_whole_url(target: bytes, path_and_query: bytes) -> None:
    parsed = parse_head(head(first=b"GET " + target + b" HTTP/1.1"))
    assert parsed is not None
    assert parsed.target == path_and_query


@pytest.mark.parametrize("target", [b"http://other/a", b"http://test:81/a", b"http://me@test/a", b"http:///a"])
def test_a_whole_url_of_another_host_is_refused(target: bytes) -> None:
    with pytest.raises(BadHead, match="different hosts"):
        parse_head(head(first=b"GET " + target + b" HTTP/1.1"))


AMBIGUOUS = [
    head(b"Content-Length: 4", b"Content-Length: 4"),
    head(b"Content-Length: 4", b"Content-Length: 5"),
    head(b"Content-Length: 4, 4"),
    head(b"Content-Length: +4"),
    head(b"Content-Length: -0"),
    head(b"Content-Length: 0x4"),
    head(b"Content-Length: 4 4"),
    head(b"Content-Length: 4_0"),
    head(b"Content-Length: \xb2"),
    head(b"Content-Length:"),
    head(b"Content-Length: " + b"9" * 16),
    head(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    head(b"Transfer-Encoding: chunked, chunked"),
    head(b"Transfer-Encoding: gzip, chunked"),
    head(b"Transfer-Encoding: identity"),
    head(b"Transfer-Encoding: xchunked"),
    head(b"Transfer-Encoding: \x0bchunked"),
    head(b"Transfer-Encoding:"),
    head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"),
    head(b"Content-Length : 4"),
    head(b" Content-Length: 4"),
    head(b"X-One: 1", b" folded"),
    head(b"X-One: 1", b"\tfolded"),
    head(b"X-One: a\0b"),
    head(b"X-One: a\x01b"),
    head(b"X-One: 1\nContent-Length: 4"),
    head(b"X-One: 1\rContent-Length: 4"),
    head(b"no colon"),
    head(b": no name"),
    head(b"X(One): 1"),
    head(b"Host: other"),
    head(first=b"GET  / HTTP/1.1"),
    head(first=b"GET / HTTP/1.1 "),
    head(first=b"GET /a b HTTP/1.1"),
    head(first=b"GET /\xe9 HTTP/1.1"),
    head(first=b"GET / http/1.1"),
    head(first=b"GET /"),
    head(first=b""),
    head(first=b"PRI * HTTP/2.0"),
    head(first=b"GET / HTTP/0.9"),
    b"GET / HTTP/1.1\nHost: test\n\n",
    b"GET / HTTP/1.1\r\nHost: test\n\r\n",
]


@pytest.mark.parametrize("data", AMBIGUOUS)
def test_what_another_server_might_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(BadHead):
        parse_head(data)


@pytest.mark.parametrize("data", [head(b"X-One: 1"), *AMBIGUOUS])
def test_byte_by_byte_a_head_is_decided_where_it_is_all_at_once(data: bytes) -> None:
    """And not before, so that the listener reads each byte once."""
    decided = next(n for n in range(1, len(data) + 1) if is_decided(data[:n], n - 1))
    for n in range(decided):
        assert parse_head(data[:n]) is None
    outcomes = []
    for part in (data[:decided], data):
        try:
            outcomes.append(repr(parse_head(part)))
        except BadHead as bad:
            outcomes.append(repr(bad))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != "None"
