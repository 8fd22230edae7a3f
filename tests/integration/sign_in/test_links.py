"""Signing in by a link, and what the cookie is worth from which page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.auth.secret import digest
from lastcall.store.postgres import PostgresStore

from tests.support.authorization import World, closed
from tests.support.operators import OPERATOR
from tests.support.servers import open_server
from tests.support.sign_in import Browser

OTHER = "https://other.example"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> AsyncIterator[World]:
    """A server with a key, so that everybody needs a credential."""
    async with open_server(postgres_store, allow_origin=(OTHER,)) as server:
        world = World(server, postgres_store, {"nobody": None})
        await world.key("service", "backend", Scope.SERVICE)
        yield world


async def link(world: World, user: str = "ada", seconds: float = 60) -> key_admin.NewLink:
    return await key_admin.create_link(world.store, user, seconds, OPERATOR)


async def follow(browser: Browser, secret: str) -> int:
    return (await browser.ask("POST", "/sign-in", json={"secret": secret})).status_code


async def signed_in(world: World, user: str = "ada") -> Browser:
    browser = Browser(world.server.url)
    assert await follow(browser, (await link(world, user)).secret) == 200
    return browser


async def test_a_link_signs_one_browser_in_until_it_signs_out(world: World) -> None:
    browser, made = Browser(world.server.url), await link(world)
    assert await browser.signed_in() is None
    assert await browser.user() == "missing_api_key"
    assert await follow(browser, made.secret) == 200
    [line] = browser.set_cookies
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=604800"} <= set(line.split("; "))
    assert "Secure" not in line
    assert await browser.signed_in() == "ada"
    assert await browser.user() == "ada"
    assert (await browser.ask("GET", "/v1/conversations")).status_code == 200
    other = Browser(world.server.url)
    assert await follow(other, made.secret) == 401
    assert other.cookies == {}
    stolen = dict(browser.cookies)
    assert (await browser.ask("DELETE", "/sign-in")).status_code == 200
    assert browser.cookies == {}
    browser.cookies = stolen
    assert await browser.signed_in() is None
    assert await browser.user() == "missing_api_key"


async def test_signing_out_ends_the_live_sessions_of_all_tabs(world: World) -> None:
    browser = await signed_in(world)
    async with browser.socket() as ws:
        await ws.get_message()
        await browser.ask("DELETE", "/sign-in")
        with trio.fail_after(2):
            assert await closed(ws) == 4001


async def test_a_link_is_used_up_by_one_of_many_who_follow_it_at_once(world: World) -> None:
    made, found = await link(world), []

    async def one() -> None:
        found.append(await follow(Browser(world.server.url), made.secret))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert sorted(found) == [200, 401, 401, 401, 401]


async def test_each_form_of_a_secret_is_worth_something_in_its_own_way_only(world: World) -> None:
    """A link is no key, a cookie is no key, and neither a key nor a client secret is a cookie."""
    browser, made = await signed_in(world), await link(world)
    [cookie] = browser.cookies.values()
    world.tokens |= {"link": made.secret, "cookie": cookie}
    for who in ("link", "cookie"):
        assert await world.begin(who) == 401
        assert (await world.ask("GET", "/v1/memories", who)).status_code == 401
    await world.secret("secret", user="ada")
    for who in ("link", "secret", "service"):
        browser.cookies = {"lastcall": str(world.tokens[who])}
        assert await browser.signed_in() is None
        assert await browser.user() == "missing_api_key"
    assert await follow(Browser(world.server.url), cookie) == 401
    assert await follow(Browser(world.server.url), str(world.tokens["service"])) == 401


async def test_a_client_secret_signs_in_for_no_longer_than_it_is_valid_itself(world: World) -> None:
    await world.secret("secret", user="ada")
    browser = Browser(world.server.url)
    assert await follow(browser, str(world.tokens["secret"])) == 200
    [line] = browser.set_cookies
    assert 590 <= int(line.split("Max-Age=")[1].split(";")[0]) <= 600
    assert await world.begin("secret") == "ada", "it is not used up"
    await key_admin.revoke(world.store, world.ids["service"], OPERATOR)
    assert await browser.signed_in() is None


async def test_a_client_secret_of_one_conversation_signs_in_for_that_one_only(world: World) -> None:
    async with world.socket("service", "?user=ada") as ws:
        conversation = json.loads(await ws.get_message())["session"]["conversation_id"]
    await world.secret("bound", user="ada", conversation=conversation)
    browser = Browser(world.server.url)
    assert await follow(browser, str(world.tokens["bound"])) == 200
    assert (await browser.ask("GET", "/v1/conversations")).status_code == 403
    assert (await browser.ask("GET", f"/v1/conversations/{conversation}/items")).status_code == 200


@pytest.mark.parametrize("how", ["the link", "the user"])
async def test_an_operator_signs_a_browser_out(world: World, how: str) -> None:
    browser, made, unused = Browser(world.server.url), await link(world, "olaf"), await link(world, "olaf")
    bystander = await signed_in(world, "eve")
    await follow(browser, made.secret)
    async with browser.socket() as ws:
        await ws.get_message()
        if how == "the link":
            revoked = await key_admin.revoke(world.store, made.link_id, OPERATOR)
            assert revoked is not None
            assert revoked.closed_sessions == 1
        else:
            done = await key_admin.sign_out(world.store, "olaf", OPERATOR)
            assert (done.browsers, done.links, done.closed_sessions) == (1, 1, 1)
        with trio.fail_after(2):
            assert await closed(ws) == 4001
    assert await browser.signed_in() is None
    assert await follow(browser, unused.secret) == (200 if how == "the link" else 401)
    assert await bystander.signed_in() == "eve"
    rows = await world.store.select("SELECT action, target FROM audit_log ORDER BY audit_id")
    assert "olaf" not in str(rows)  # which no hash has among its digits


async def test_an_erased_user_is_signed_out(world: World) -> None:
    browser, unused = await signed_in(world), await link(world)
    await world.store.fetch("erase_user", *OPERATOR.columns, "ada")
    assert await browser.signed_in() is None
    assert await browser.user() == "missing_api_key"
    assert await follow(browser, unused.secret) == 401


async def test_a_link_that_nobody_followed_in_time_does_not_sign_in(world: World) -> None:
    await world.store.select(
        "INSERT INTO client_secrets (user_id, secret_hash, expires_at, form, origin)"
        " VALUES ('ada', $1, now() - interval '1 s', 'link', 'operator')",
        digest("ek_late"),
    )
    assert await follow(Browser(world.server.url), "ek_late") == 401


async def test_another_link_signs_the_browser_out_before(world: World) -> None:
    browser = await signed_in(world, "eve")
    before = dict(browser.cookies)
    assert await follow(browser, (await link(world)).secret) == 200
    assert await browser.user() == "ada"
    browser.cookies = before
    assert await browser.signed_in() is None


# --- from which page


async def test_the_cookie_counts_from_the_servers_own_page_only(world: World) -> None:
    """Also where a browser sends it along: from another port of the host, or from a page that may connect."""
    browser = await signed_in(world)
    port = int(world.server.url.rpartition(":")[2])
    assert await browser.user(OTHER) == "missing_api_key"
    assert await browser.user("") == "missing_api_key"  # no browser
    for foreign in (f"http://127.0.0.1:{port + 1}", f"http://localhost:{port}", "https://evil.example", "null"):
        assert await browser.user(foreign) == 403
        assert (await browser.ask("GET", "/v1/memories", origin=foreign)).status_code == 403
        assert (await browser.ask("DELETE", "/sign-in", origin=foreign)).status_code == 403
    assert (await browser.ask("GET", "/v1/memories", origin=OTHER)).status_code == 401
    assert (await browser.ask("GET", "/sign-in", origin=OTHER)).json()["user"] is None
    for site in ("cross-site", "same-site"):
        assert (await browser.ask("GET", "/v1/memories", headers={"sec-fetch-site": site})).status_code == 401
    for site in ("same-origin", "none"):
        assert (await browser.ask("GET", "/v1/memories", headers={"sec-fetch-site": site})).status_code == 200
    assert await browser.user() == "ada"


UNSAFE = [
    ("POST", f"/v1/conversations/conv_{'0' * 32}"),
    ("DELETE", f"/v1/conversations/conv_{'0' * 32}"),
    ("PATCH", "/v1/memories/mem_1"),
    ("DELETE", "/v1/memories/mem_1"),
]


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_nothing_is_changed_without_the_pages_own_origin(world: World, method: str, path: str) -> None:
    browser = await signed_in(world)
    assert (await browser.ask(method, path, origin="", json={"title": "x"})).status_code == 401
    assert (await browser.ask(method, path, origin=OTHER, json={"title": "x"})).status_code == 401
    assert (await browser.ask(method, path, json={"title": "x"})).status_code in (400, 404)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/sign-in"), ("DELETE", "/sign-in"), ("POST", "/sign-in/provider")]
)
@pytest.mark.parametrize("origin", ["", OTHER, "https://evil.example", "null"])
async def test_only_the_own_page_signs_in_and_out(world: World, method: str, path: str, origin: str) -> None:
    browser, made = await signed_in(world), await link(world)
    before = dict(browser.cookies)
    answer = await browser.ask(method, path, origin=origin, json={"secret": made.secret})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")
    assert browser.cookies == before
    assert await browser.signed_in() == "ada"
    assert await follow(Browser(world.server.url), made.secret) == 200


async def test_a_key_of_the_request_wins_over_the_cookie(world: World) -> None:
    browser = await signed_in(world)
    headers = {"authorization": f"Bearer {world.tokens['service']}"}
    answer = await browser.ask("GET", "/v1/conversations", headers=headers, params={"user": "eve"})
    assert answer.status_code == 200
    assert (await browser.ask("POST", "/v1/realtime/client_secrets", json={})).status_code == 403
    assert (await browser.ask("POST", "/v1/realtime/client_secrets", headers=headers, json={})).status_code == 200


async def test_over_https_the_cookie_is_bound_to_the_host_and_to_tls(postgres_store: PostgresStore) -> None:
    """The Origin tells, whatever proxy speaks TLS in front."""
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store)
        await world.key("service", "backend", Scope.SERVICE)
        browser = Browser(server.url)
        origin = server.url.replace("http://", "https://")
        answer = await browser.ask("POST", "/sign-in", origin=origin, json={"secret": (await link(world)).secret})
        assert answer.status_code == 200
        [line] = browser.set_cookies
        assert line.startswith("__Host-lastcall=")
        assert "Secure" in line.split("; ")
        assert await browser.user(origin) == "ada"
        assert (await browser.ask("DELETE", "/sign-in", origin=origin)).status_code == 200
        assert browser.cookies == {}


BODIES = [b"", b"{}", b'{"secret": 1}', b'{"secret": "ek_x", "more": 1}', b"\xff", b"[" * 1000]


@pytest.mark.parametrize("body", BODIES, ids=repr)
async def test_a_body_that_is_none_is_refused(world: World, body: bytes) -> None:
    assert (await Browser(world.server.url).ask("POST", "/sign-in", content=body)).status_code == 400


@pytest.mark.parametrize("secret", ["", "ek_", "ek_" + "x" * 100_000, "\ud83d", "ek_\u0000"])
async def test_a_secret_that_is_none_signs_nobody_in(world: World, secret: str) -> None:
    content = json.dumps({"secret": secret}).encode()
    assert (await Browser(world.server.url).ask("POST", "/sign-in", content=content)).status_code in (400, 401)


async def test_a_cookie_that_is_worth_nothing_does_not_shut_out_an_open_server(postgres_store: PostgresStore) -> None:
    """Cookies do not know ports: another server on this machine may have set it."""
    async with open_server(postgres_store) as server:
        browser = Browser(server.url)
        browser.cookies = {"lastcall": "ek_of-another-server"}
        assert await browser.user() == "anonymous"
        assert (await browser.ask("GET", "/v1/memories")).status_code == 200
        world = World(server, postgres_store, {"nobody": None})
        await world.secret("without a key", "nobody", user="ada")
        assert await follow(browser, str(world.tokens["without a key"])) == 401, "it would outlive the first key"
        assert await follow(browser, (await link(world)).secret) == 200
        assert await browser.user() == "ada"
