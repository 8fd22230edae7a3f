"""Which URLs may be endpoints."""

from __future__ import annotations

import pytest
from lastcall.webhooks.urls import URL_CHARS_MAX, check_url, host_of

GOOD = (
    "https://example.com",
    "https://example.com:8443/hook?tenant=1",
    "https://[2001:db8::1]/hook",
    "http://localhost:9000/hook",
    "http://127.0.0.1/",
    "http://[::1]:9000/",
)
BAD = {
    "example.com/hook": "like https",
    "ftp://example.com/": "like https",
    "https:///hook": "like https",
    "https://example.com:0/": "like https",
    "https://example.com:99999/": "not valid",
    "https://[::1/": "not valid",
    "https://ada:secret@example.com/": "user or password",
    "https://@example.com/": "user or password",
    "https://example.com/#part": "fragment",
    "https://example.com/a b": "printable ASCII",
    "https://example.com/\r\nx: y": "printable ASCII",
    "https://ex\u00e4mple.com/": "printable ASCII",
    f"https://example.com/{'x' * URL_CHARS_MAX}": "characters",
    "http://example.com/": "https",
    "http://10.0.0.1/": "https",
    "http://localhost.example/": "https",
    "": "like https",
}


@pytest.mark.parametrize("url", GOOD)
def test_https_anywhere_and_http_to_this_machine_are_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_cannot_be_meant_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=BAD[url]):
        check_url(url)


def test_http_to_another_machine_is_taken_where_that_is_said() -> None:
    assert check_url("http://10.0.0.1/hook", allow_http=True)
    with pytest.raises(ValueError, match="like https"):
        check_url("file:///etc/passwd", allow_http=True)


def test_logs_name_the_host_and_nothing_else_of_a_url() -> None:
    assert host_of("https://example.com/secret?token=secret") == "example.com"
    assert host_of("https://[::1/") == "?"
