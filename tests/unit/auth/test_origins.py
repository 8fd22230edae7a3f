"""Which pages and which names may talk to a server."""

from __future__ import annotations

import pytest
from lastcall.auth.origins import is_allowed_origin, is_own_host, origin_of

HOST = "localhost:8000"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", HOST),
        ("https://localhost:8000", HOST),  # a proxy in front may speak TLS
        ("http://LocalHost:8000", HOST),
        ("http://localhost:8000", "LOCALHOST:8000"),
        ("https://chat.example", "chat.example"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://chat.example", "chat.example:443"),  # proxies that name the port
        ("https://chat.example", "CHAT.example:443"),
        ("https://chat.example:443", "chat.example"),
        ("http://chat.example", "chat.example:80"),
    ],
)
def test_a_page_of_ours_may_connect(origin: str, host: str) -> None:
    assert is_allowed_origin(origin, host, ())


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost",
        "http://localhost:8001",
        "http://localhost:8000.evil.example",
        "http://evil.example@localhost:8000",
        "http://127.0.0.1:8000",
        "null",
        "",
        "localhost:8000",
        "file://",
        "\xff\xfe",
        "//[",
        "http://[::1",
        "http://[localhost:8000]",
    ],
)
def test_a_foreign_page_may_not_connect(origin: str) -> None:
    assert not is_allowed_origin(origin, HOST, ())
    assert not is_allowed_origin(origin, HOST, ["https://chat.example"])


@pytest.mark.parametrize("host", ["chat.example:80", "chat.example:8443", "evil@chat.example", "chat.example:no", "["])
def test_a_page_of_another_port_may_not_connect(host: str) -> None:
    assert not is_allowed_origin("https://chat.example", host, ())


@pytest.mark.parametrize(
    ("origin", "scheme", "allowed"),
    [
        ("https://chat.example", "https", True),
        ("http://chat.example", "http", True),
        ("http://chat.example", "https", False),
        ("https://chat.example", "http", False),
    ],
)
def test_a_page_has_our_scheme_where_that_is_known(origin: str, scheme: str, allowed: bool) -> None:
    assert is_allowed_origin(origin, "chat.example", (), scheme) is allowed


@pytest.mark.parametrize("origin", ["null", "", "file://"])
def test_an_empty_host_matches_no_origin(origin: str) -> None:
    assert not is_allowed_origin(origin, "", ())


def test_a_client_that_is_no_page_names_no_origin() -> None:
    assert is_allowed_origin(None, HOST, ())


@pytest.mark.parametrize("origin", ["https://chat.example", "https://CHAT.example:443"])
def test_a_listed_page_may_connect(origin: str) -> None:
    assert is_allowed_origin(origin, HOST, ["https://chat.example"])


@pytest.mark.parametrize("origin", ["http://chat.example", "https://chat.example:8443", "https://x.chat.example"])
def test_a_page_that_is_nearly_a_listed_one_may_not(origin: str) -> None:
    assert not is_allowed_origin(origin, HOST, ["https://chat.example"])


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Chat.Example", "https://chat.example"),
        ("https://chat.example:443/", "https://chat.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text: str, origin: str) -> None:
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text",
    ["*", "null", "", "chat.example", "ftp://chat.example", "https://", "https://a@b", "https://a/b", "http://["],
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        origin_of(text)


@pytest.mark.parametrize(
    ("host", "bound", "own"),
    [
        ("localhost:8000", "127.0.0.1", True),
        ("127.0.0.1:8000", "localhost", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("evil.example@localhost", "127.0.0.1", True),  # no browser sends this, and it names localhost
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("10.0.0.1", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("[", "127.0.0.1", False),
    ],
)
def test_a_host_is_our_own_or_a_name_that_was_made_to_point_here(host: str, bound: str, own: bool) -> None:
    assert is_own_host(host, bound) is own
