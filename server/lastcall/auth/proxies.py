"""Proxies in front of the server: what shows that there is one, and what a trusted one says about its client. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.errors import RequestRefused

HOPS_MAX = 32  # proxies behind one another; those before them are not looked at
PAIR_WORDS = 3  # of `name=value`

# What proxies and content networks add. Clients of ours send none of these, nor names that begin or end like the rest.
_SIGNS = frozenset({
    b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-proxyuser-ip",
    b"client-ip", b"true-client-ip", b"proxy-client-ip", b"wl-proxy-client-ip", b"fastly-client-ip",
    b"fly-client-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-appengine-user-ip", b"x-rewrite-url",
    b"cdn-loop", b"x-scheme", b"x-url-scheme",
})  # fmt: skip
_SIGNS_BEGIN = (b"x-forwarded", b"x-original", b"x-envoy-", b"cf-", b"x-akamai-")
_SIGNS_END = (b"forwarded-for", b"-client-ip", b"-connecting-ip", b"-real-ip")

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}  # some proxies name the WebSocket's
# Each alternative begins with characters of its own, so that no header makes the search go back.
_WORD = re.compile(r'[ \t]+|"(?:[^"\\]|\\.)*"|[^ \t",;=]+|[,;=]')

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Fields = Iterable[tuple[bytes, bytes]]


def sign_of_proxy(names: Iterable[bytes]) -> str | None:
    """The name of a header that only a proxy adds; None where there is none.

    names: in lower case. An underscore counts as a hyphen, as it does to what reads headers as CGI variables.
    """
    for name in names:
        plain = name.replace(b"_", b"-")
        if plain in _SIGNS or plain.startswith(_SIGNS_BEGIN) or plain.endswith(_SIGNS_END):
            return name.decode("latin-1")
    return None


def network_of(text: str) -> Network:
    """An address or a network such as 10.0.0.0/8 or fd00::/8. Raises `ValueError`, with a sentence for the user."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a network like 10.0.0.5, 10.0.0.0/8 or fd00::/8.") from None
    if network.prefixlen == 0:  # then every client could claim any address
        raise ValueError(f"{text!r} would trust everybody; name the addresses of the proxies.")
    return network


class RequestClient(Struct, frozen=True):
    """The client of one request.

    address: as text; the proxy's where that does not tell, empty where it is not known. host, scheme: that the client
    asked for; None: a proxy does not tell, or is not trusted.
    """

    address: str
    host: str | None = None
    scheme: str | None = None


class TrustedProxies:
    """The proxies whose headers are believed. networks: as `network_of` reads them."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: Sequence[Network] = [network_of(each) for each in networks]

    def trusts(self, address: str) -> bool:
        """Whether a peer is one of them."""
        if not self._networks:
            return False
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, fields: Fields) -> RequestClient:
        """The client of a request that came from this peer; the peer itself, unless it is trusted.

        Args:
            peer: The socket's address.
            fields: The request's headers, all of them in the order sent, with names in lower case.

        Raises:
            RequestRefused: Two headers contradict each other, or `Forwarded` is malformed: a client may have sent it,
                and the proxy passed it on.
        """
        if not self.trusts(peer):
            return RequestClient(peer)
        fields = list(fields)
        elements = list(_elements(fields))
        named = any("for" in each for each in elements)
        listed = _listed(fields, b"x-forwarded-for")
        address, hop = self._nearest(peer, [each.get("for", "") for each in elements] if named else listed)
        if named and listed and address != self._nearest(peer, listed)[0]:
            message = (
                "Forwarded and X-Forwarded-For name different clients; let the proxy set one and remove the other."
            )
            raise RequestRefused("http_error", message)
        client = RequestClient(address)
        if named and hop is not None:
            client = _asked_for(client, elements[hop].get("host"), elements[hop].get("proto"))
        return _asked_for(client, _last(fields, b"x-forwarded-host"), _last(fields, b"x-forwarded-proto"))

    def _nearest(self, peer: str, hops: Sequence[str]) -> tuple[str, int | None]:
        """The nearest hop that is no proxy of ours, and its index: what stands before it can be forged."""
        nearest, at = peer, None
        for index in range(len(hops) - 1, max(-1, len(hops) - 1 - HOPS_MAX), -1):
            parsed = _address(hops[index])
            if parsed is None:
                break
            nearest, at = str(parsed), index
            if not self.trusts(nearest):
                break
        return nearest, at


def _asked_for(client: RequestClient, host: str | None, scheme: str | None) -> RequestClient:
    """With the host and scheme, where they are told."""
    known = _SCHEMES.get((scheme or "").lower())
    return replace(client, host=host or client.host, scheme=known or client.scheme)


def _listed(fields: Fields, name: bytes) -> list[str]:
    """The values of a header that is a list, also over several lines."""
    lines = [value.decode("latin-1") for each, value in fields if each == name]
    return [each.strip() for each in ",".join(lines).split(",")] if lines else []


def _last(fields: Fields, name: bytes) -> str | None:
    """Of several values, that of the nearest proxy."""
    values = _listed(fields, name)
    return values[-1] or None if values else None


def _elements(fields: Fields) -> Iterator[dict[str, str]]:
    """The elements of `Forwarded` (RFC 7239), from the client's to the nearest. Raises `RequestRefused`."""
    for name, value in fields:
        if name == b"forwarded":  # each line by itself: a quote that a client left open does not reach the proxy's
            element: list[Sequence[str]] = [[]]
            for word in (*_words(value.decode("latin-1")), ","):
                if word == ",":
                    if found := dict(_pair(each) for each in element if each):  # a list may have empty places
                        yield found
                    element = [[]]
                elif word == ";":
                    element.append([])
                elif len(element[-1]) < PAIR_WORDS:
                    element[-1] = (*element[-1], word)
                else:
                    raise _malformed()


def _words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            raise _malformed()
        if found[0].strip(" \t"):
            yield found[0]
        at = found.end()


def _pair(words: Sequence[str]) -> tuple[str, str]:
    if len(words) != PAIR_WORDS or words[1] != "=" or "=" in (words[0], words[2]):
        raise _malformed()
    return words[0].lower(), _unquoted(words[2])


def _malformed() -> RequestRefused:
    return RequestRefused("http_error", "The header Forwarded is malformed.")


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a hop, with or without a port; None for `unknown`, names and whatever else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
