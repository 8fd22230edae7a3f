"""What shows that a request came through a proxy, and which client a trusted proxy tells of."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.auth.proxies import HOPS_MAX, RequestClient, TrustedProxies, network_of, sign_of_proxy
from lastcall.protocol.errors import RequestRefused

PROXY, CLIENT = "10.0.0.1", "198.51.100.7"
TRUSTED = TrustedProxies(["10.0.0.0/24", "fd00::/8"])
HEAD_BYTES = 16_384
GUESS_SECONDS = 0.5  # of CPU for one head: generous, yet far below what a search that goes back would take


def fields(*lines: str) -> list[tuple[bytes, bytes]]:
    pairs = (line.partition(": ") for line in lines)
    return [(name.lower().encode(), value.encode()) for name, _, value in pairs]


@pytest.mark.parametrize(
    "name",
    [
        "forwarded", "via", "x-real-ip", "x-forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
        "x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix", "x-forwarded-anything",
        "x-original-forwarded-for",
        "x-original-host", "x-original-url", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
        "cf-connecting-ipv6", "cf-ray", "fastly-client-ip", "x-envoy-external-address", "x_forwarded_for", "x_real_ip",
        "forwarded-for", "x-vercel-forwarded-for", "do-connecting-ip", "ali-cdn-real-ip",
    ],
)  # fmt: skip
def test_a_header_that_only_proxies_add_shows_one(name: str) -> None:
    assert sign_of_proxy([b"host", name.encode()]) == name


def test_the_headers_of_clients_show_no_proxy() -> None:
    names = (
        "host", "user-agent", "accept", "authorization", "origin", "cookie", "connection", "upgrade", "referer",
        "sec-websocket-key", "sec-fetch-site", "x-stainless-lang", "x-requested-with", "openai-safety-identifier",
        "x-request-id", "traceparent", "x-ms-client-request-id", "api-key",
    )  # fmt: skip
    assert sign_of_proxy(name.encode() for name in names) is None


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PROXY),  # its own request, such as a probe
        ([f"X-Forwarded-For: {CLIENT}"], CLIENT),
        ([f"X-Forwarded-For: 127.0.0.1, {CLIENT}"], CLIENT),
        (["X-Forwarded-For: 127.0.0.1", f"X-Forwarded-For: {CLIENT}"], CLIENT),  # the proxy adds a line of its own
        ([f"X-Forwarded-For: 127.0.0.1, {CLIENT}, 10.0.0.2, fd00::5"], CLIENT),
        ([f"X-Forwarded-For: {CLIENT}:4711"], CLIENT),
        (["X-Forwarded-For: [2001:db8::1]:4711"], "2001:db8::1"),
        (["X-Forwarded-For: 2001:db8::1"], "2001:db8::1"),
        ([f"X-Forwarded-For: ::ffff:{CLIENT}"], CLIENT),
        (["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # a request of one proxy through another
        ([f"X-Forwarded-For: {CLIENT}, unknown"], PROXY),
        ([f"X-Forwarded-For: {CLIENT}, garbage, 10.0.0.2"], "10.0.0.2"),
        (["X-Forwarded-For: "], PROXY),
        ([f"Forwarded: for={CLIENT}"], CLIENT),
        ([f'Forwarded: for=127.0.0.1, FOR="{CLIENT}:99";proto=https;by=x'], CLIENT),
        (['Forwarded: for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (["Forwarded: for=127.0.0.1", f"Forwarded: for={CLIENT}, for=10.0.0.2"], CLIENT),
        (["Forwarded: for=_hidden"], PROXY),
        (["Forwarded: proto=https", f"X-Forwarded-For: {CLIENT}"], CLIENT),
        ([f"Forwarded: for={CLIENT}", f"X-Forwarded-For: 127.0.0.1, {CLIENT}"], CLIENT),
        ([f"X-Real-IP: {CLIENT}"], PROXY),  # not believed: proxies pass it on as a client sent it
    ],
)
def test_the_client_is_the_nearest_hop_that_is_no_trusted_proxy(lines: list[str], address: str) -> None:
    assert TRUSTED.client(PROXY, fields(*lines)).address == address


@pytest.mark.parametrize(
    "lines",
    [
        ["Forwarded: for=127.0.0.1", f"X-Forwarded-For: {CLIENT}"],  # one of them is the client's own
        [f"Forwarded: for={CLIENT}", "X-Forwarded-For: 127.0.0.1"],
        [f'Forwarded: for="127.0.0.1, for={CLIENT}'],
        [f'Forwarded: for="x, for="{CLIENT}"'],
        ['Forwarded: for="127.0.0.1', f"Forwarded: for={CLIENT}"],
        ["Forwarded: for"],
        ["Forwarded: for=a=b"],
    ],
)
def test_what_a_client_may_have_forged_is_refused(lines: list[str]) -> None:
    with pytest.raises(RequestRefused) as refused:
        TRUSTED.client(PROXY, fields(*lines))
    assert refused.value.status == 400


@given(st.lists(st.sampled_from([CLIENT, "127.0.0.1", "10.0.0.9", "unknown", '"', ",", "for=", ";", "\\", ""])))
def test_nothing_that_a_client_sends_changes_its_address(sent: list[str]) -> None:
    """A proxy appends what it knows, to the header or in a line of its own."""
    before = ",".join(sent)
    real = "203.0.113.9"
    for appended in (
        [f"X-Forwarded-For: {before}, {real}"],
        [f"X-Forwarded-For: {before}", f"X-Forwarded-For: {real}"],
        [f"Forwarded: {before}, for={real}"],
        [f"Forwarded: {before}", f"Forwarded: for={real}"],
        [f"Forwarded: {before}", f"X-Forwarded-For: {real}"],
    ):
        try:
            assert TRUSTED.client(PROXY, fields(*appended)).address == real
        except RequestRefused:
            assert "Forwarded: " in appended[0]


@pytest.mark.parametrize("peer", ["198.51.100.99", "127.0.0.1", "", "10.0.1.1"])
def test_headers_of_an_untrusted_peer_are_ignored(peer: str) -> None:
    lines = [f"X-Forwarded-For: {CLIENT}", 'Forwarded: for="', "X-Forwarded-Host: evil", "X-Forwarded-Proto: https"]
    assert TRUSTED.client(peer, fields(*lines)) == RequestClient(peer)


@pytest.mark.parametrize("peer", [PROXY, "fd00::1", f"::ffff:{PROXY}", "fd00::1%eth0"])
def test_a_trusted_proxy_is_known_in_each_form_of_its_address(peer: str) -> None:
    assert TRUSTED.trusts(peer)


@pytest.mark.parametrize(
    ("lines", "host", "scheme"),
    [
        ([], None, None),
        (["X-Forwarded-Host: chat.example", "X-Forwarded-Proto: https"], "chat.example", "https"),
        (["X-Forwarded-Host: evil.example, chat.example", "X-Forwarded-Proto: http, HTTPS"], "chat.example", "https"),
        (["X-Forwarded-Proto: wss"], None, "https"),
        (["X-Forwarded-Proto: gopher", "X-Forwarded-Host: "], None, None),
        ([f'Forwarded: for={CLIENT};proto=https;host="chat.example:8443"'], "chat.example:8443", "https"),
        ([f"Forwarded: host=evil.example, for={CLIENT};host=chat.example"], "chat.example", None),
    ],
)
def test_the_host_and_scheme_are_those_that_the_proxy_was_asked_for(
    lines: list[str], host: str | None, scheme: str | None
) -> None:
    client = TRUSTED.client(PROXY, fields(*lines))
    assert (client.host, client.scheme) == (host, scheme)


@pytest.mark.parametrize(
    "value", ["\t ; " * 4_000, "a " * 8_000, "a=b;" * 4_000, 'for="' + '\\"' * 8_000, "," * 16_000, "=" * 16_000]
)
def test_a_head_full_of_anything_is_read_at_once(value: str) -> None:
    head = fields(f"Forwarded: {value[:HEAD_BYTES]}", f"X-Forwarded-For: {value[:HEAD_BYTES]}")
    began = time.thread_time()
    with suppress(RequestRefused):
        TRUSTED.client(PROXY, head)
    assert time.thread_time() - began < GUESS_SECONDS


def test_a_bounded_number_of_hops_is_looked_at() -> None:
    hops = ["198.51.100.1", *(f"10.0.0.{number}" for number in range(2, HOPS_MAX + 3))]
    assert TRUSTED.client(PROXY, fields(f"X-Forwarded-For: {', '.join(hops)}")).address == "10.0.0.3"


@pytest.mark.parametrize("text", ["10.0.0.5", "10.0.0.0/8", "fd00::/8", "::1", " 10.0.0.5 "])
def test_an_address_or_a_network_is_read(text: str) -> None:
    assert str(network_of(text)).startswith(text.strip())


@pytest.mark.parametrize("text", ["", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*", "10.0.0.0-10.0.0.9", "10.0.0"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address or a network"):
        network_of(text)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_nobody_can_trust_everybody(text: str) -> None:
    with pytest.raises(ValueError, match="would trust everybody"):
        network_of(text)
