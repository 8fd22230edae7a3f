"""The head of an HTTP/1 request, parsed strictly: what a proxy in front could read differently is an error. Pure."""

from __future__ import annotations

import re

from msgspec import Struct

_END = b"\r\n\r\n"
# A bare LF or CR, which some servers take for the end of a line, or NUL, at which some end a value.
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
# No white space before the colon, and none in front of a name: a line that goes on (obs-fold) is no field.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
# A proxy's first bytes, in the text form and in the binary one (haproxy's proxy-protocol.txt, section 2).
_PROXY_PROTOCOL = re.compile(rb"PROXY (?:TCP[46]|UNKNOWN)[ \r]|\r\n\r\n\0\r\nQUIT\n")
_WHOLE_URL = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"\d{1,15}")  # as int() it would also be "+5", "5_0" and " 5 "


class BadHead(Exception):
    """A head that is answered with 400."""


class ProxyProtocol(BadHead):
    """A proxy announces its client before the request, in a protocol that is not HTTP."""


class RequestHead(Struct, frozen=True):
    """fields: names in lower case, in the order sent. size: in bytes, with the empty line.

    target: its path and query, also where a whole URL was sent.
    has_body: whether a body follows, whatever the method is.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: tuple[tuple[bytes, bytes], ...]
    size: int
    has_body: bool

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def wants_websocket(self) -> bool:
        offers = b",".join(self.values(b"upgrade")).lower().split(b",")
        return any(offer.strip() == b"websocket" for offer in offers)

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]


def is_decided(data: bytes, seen: int) -> bool:
    """Whether `parse_head` has a result for these bytes. seen: how many of them were looked at before."""
    if _PROXY_PROTOCOL.match(data):
        return True
    return data.find(_END, max(0, seen - 3)) >= 0 or _AMBIGUOUS.search(data, max(0, seen - 1)) is not None


def is_ambiguous(data: bytes | bytearray) -> bool:
    """Whether the lines up to the first empty one, or to the end, hold a bare line end or NUL."""
    end = data.find(_END)
    return _AMBIGUOUS.search(data, 0, len(data) if end < 0 else end) is not None


def parse_head(data: bytes) -> RequestHead | None:
    """The head at the beginning of these bytes; None while it is incomplete. Raises `BadHead`, as soon as possible."""
    if _PROXY_PROTOCOL.match(data):
        raise ProxyProtocol(
            "This server does not speak the PROXY protocol (proxy_protocol, send-proxy): turn it off in the proxy, let"
            " it send X-Forwarded-For, and name it with --trusted-proxy."
        )
    end = data.find(_END)
    if is_ambiguous(data):
        raise BadHead("The request's head has a bare line end or NUL.")
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise BadHead("The request line is malformed.")
    fields = [_FIELD.fullmatch(line) for line in lines]
    if None in fields:
        raise BadHead("The request has a malformed header.")
    pairs = tuple((field[1].lower(), field[2].rstrip(b" \t")) for field in fields if field is not None)
    version = int(request[3]), int(request[4])
    has_body = _has_body(version, pairs)
    return RequestHead(request[1], _without_host(request[2], pairs), version, pairs, end + len(_END), has_body)


def _without_host(target: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Every server takes a whole URL as well (RFC 9112, 3.2.2). Raises `BadHead` where it names another host.

    There it would count, and not the header; but a check of the origin, or a proxy, may have looked at that one.
    """
    url = _WHOLE_URL.match(target)
    if url is None:
        return target
    if any(name == b"host" and value.lower() != url[1].lower() for name, value in fields):
        raise BadHead("The request's target and its Host header name different hosts.")
    rest = target[url.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _has_body(version: tuple[int, int], fields: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Raises `BadHead` for what is wrong about the version, the host or the length."""
    named = (b"host", b"content-length", b"transfer-encoding")
    hosts, lengths, codings = ([value for each, value in fields if each == name] for name in named)
    if version[0] != 1:
        raise BadHead("This server speaks HTTP/1.1.")
    if len(hosts) > 1:
        raise BadHead("The request has two Host headers.")
    if len(lengths) + len(codings) > 1:
        raise BadHead("The request has two lengths.")
    if not all(_LENGTH.fullmatch(length) for length in lengths):
        raise BadHead("Content-Length must be one number.")
    if not all(coding.lower() == b"chunked" and version >= (1, 1) for coding in codings):
        raise BadHead("Transfer-Encoding must be chunked, in HTTP/1.1.")
    return any(codings) or any(int(each) for each in lengths)
