"""Which cookie of a request stands for somebody."""

from __future__ import annotations

import pytest
from lastcall.auth.cookies import SIGN_IN, find_cookie, sign_in_of
from lastcall.auth.identity import Presented

HOST = "chat.example"


@pytest.mark.parametrize(
    ("header", "scheme", "found"),
    [
        ("lastcall=a", None, ("a", False)),
        ("x=1; lastcall=a;y=2", None, ("a", False)),
        ("lastcall=a; __Host-lastcall=b", None, ("b", True)),
        ("lastcall=a", "https", None),  # a page of a sibling host could have set it
        ("__Host-lastcall=b", "https", ("b", True)),
        ("lastcall=a=b", None, ("a=b", False)),
        ("lastcall=", None, None),
        ("xlastcall=a; lastcall2=b; LASTCALL=c", None, None),
        ("lastcall", None, None),
        ("", None, None),
        (";;=;", None, None),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(header: str, scheme: str | None, found: object) -> None:
    assert find_cookie(header, SIGN_IN, scheme) == found


@pytest.mark.parametrize(
    ("headers", "only_reads", "counts"),
    [
        ({"origin": "https://chat.example"}, False, True),
        ({"origin": "https://chat.example"}, True, True),
        ({}, True, True),
        ({"sec-fetch-site": "same-origin"}, True, True),
        ({"sec-fetch-site": "none"}, True, True),
        ({}, False, False),
        ({"sec-fetch-site": "same-origin"}, False, False),  # what changes something names its origin
        ({"sec-fetch-site": "same-site"}, True, False),
        ({"sec-fetch-site": "cross-site"}, True, False),
        ({"origin": "https://evil.example"}, True, False),
        ({"origin": "https://chat.example:8443"}, True, False),
        ({"origin": "null"}, True, False),
        ({"origin": ""}, True, False),
    ],
)
def test_it_counts_for_the_servers_own_page_only(headers: dict[str, str], only_reads: bool, counts: bool) -> None:
    presented = Presented({"cookie": "lastcall=a", **headers}, {}, HOST, only_reads=only_reads)
    assert sign_in_of(presented) == ("a" if counts else None)
