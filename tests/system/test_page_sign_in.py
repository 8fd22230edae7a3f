"""Signing in on the chat page: by a link, at an identity provider, and in a frame of another site; signing out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from ..support.axe import violations
from ..support.chat_page import Visitors, button, expect_conversation, say
from ..support.databases import psql
from ..support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, open_identity_provider
from ..support.lastcall_command import process
from ..support.processes import run_server
from ..support.threads import in_a_thread

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

CLIENTS = Path(__file__).parents[2] / "docs" / "clients.md"
EXAMPLE = re.search(r"^```html in-a-frame\n(.*?)^```$", CLIENTS.read_text(), re.DOTALL | re.MULTILINE)
KEPT = "() => { try { return localStorage.length + sessionStorage.length; } catch { return 'refused'; } }"


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with open_identity_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def parent() -> Iterator[Parent]:
    with open_parent() as parent:
        yield parent


@pytest.fixture(scope="module")
def server(database_url: str, provider: IdentityProvider, parent: Parent) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LASTCALL_OIDC_CLIENT_SECRET", CLIENT_SECRET)
        with run_server(
            "--database-url", database_url, "--agent", "echo",
            "--oidc-issuer", provider.url, "--oidc-client-id", CLIENT_ID,
            "--embed-origin", parent.url,
        ) as server:  # fmt: skip
            yield server


class Parent:
    """Another site, under two names, of which the server allows `url`. pages: what it shows, by path."""

    def __init__(self, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.other_url = f"http://127.0.0.1:{port}"
        self.pages: dict[str, str] = {}


@contextmanager
def open_parent() -> Iterator[Parent]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in site.pages else 404)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(site.pages.get(self.path, "").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Parent(server.server_port)
    with in_a_thread(server):
        yield site


def link(server: ServerProcess, database_url: str, user: str) -> str:
    made = process("keys", "link", user, "--url", server.url, "--database-url", database_url)
    assert made.code == 0, made.err
    return made.out.strip()


def expect_signed_in(page: Page, user: str) -> None:
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(page.get_by_label("Your name")).to_have_value(user)
    expect(button(page, "Sign out")).to_be_visible()


def test_a_link_signs_in_leaves_the_address_and_is_kept_until_one_signs_out(
    open_page: Visitors, server: ServerProcess, database_url: str
) -> None:
    address = link(server, database_url, "link-ada")
    page = open_page.visit(server.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    assert violations(page) == []
    page.goto(address)  # only its fragment is another one: the page stays
    expect_signed_in(page, "link-ada")
    assert page.url == f"{server.url}/"
    secret = address.partition("#")[2]
    assert secret not in "".join(asked)
    assert secret not in page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    assert "lastcall" not in page.evaluate("document.cookie")
    say(page, "whose?")
    expect_conversation(page, "whose?", "You said: whose?")
    assert violations(page) == []
    page.reload()
    expect_conversation(page, "whose?", "You said: whose?")
    expect_signed_in(page, "link-ada")
    other = page.context.new_page()
    other.goto(server.url)
    expect_signed_in(other, "link-ada")
    button(page, "Sign out").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
    expect(button(page, "Sign out")).to_be_hidden()
    expect(page.locator("#messages li")).to_have_count(0)
    expect(page.locator("#conversation-list li")).to_have_count(0)
    expect(other.get_by_label("Key", exact=True)).to_be_visible()
    page.goto(address)
    expect(page.get_by_role("alert")).to_contain_text("This link does not work")
    assert violations(page) == []
    assert psql(database_url, "SELECT DISTINCT user_id FROM conversations WHERE user_id LIKE 'link-%'") == "link-ada"


def test_another_link_asks_before_somebody_else_is_signed_in(
    open_page: Visitors, server: ServerProcess, database_url: str
) -> None:
    """Whoever sends somebody a link of their own would otherwise hear what is said there."""
    page = open_page.visit(link(server, database_url, "first"))
    expect_signed_in(page, "first")
    address = link(server, database_url, "second")
    page.goto(address)
    expect(page.get_by_role("dialog")).to_contain_text("signed in as “first”")
    assert violations(page) == []
    button(page, "Cancel").click()
    expect_signed_in(page, "first")
    page.goto(address)
    button(page.get_by_role("dialog"), "Sign in").click()  # type: ignore[arg-type]
    expect_signed_in(page, "second")


def test_one_signs_in_at_the_provider_and_out(
    open_page: Visitors, server: ServerProcess, provider: IdentityProvider
) -> None:
    page = open_page.visit(server.url)
    name = urlsplit(provider.url).netloc
    provider.refuse = "access_denied"
    button(page, f"Sign in with {name}").click()
    page.get_by_role("link", name="Continue as ada").click()
    expect(page.get_by_role("alert")).to_contain_text("did not let you in")
    assert page.url == f"{server.url}/"
    assert violations(page) == []
    provider.refuse = None
    button(page, f"Sign in with {name}").click()
    page.get_by_role("link", name="Continue as ada").click()
    expect_signed_in(page, "ada")
    say(page, "at the provider")
    expect_conversation(page, "at the provider", "You said: at the provider")
    assert re.fullmatch(r"/c/conv_[0-9a-f]{32}", urlsplit(page.url).path)
    cookies = page.context.cookies()
    assert [(each["name"], each["httpOnly"], each["sameSite"]) for each in cookies] == [("lastcall", True, "Strict")]
    page.reload()
    expect_conversation(page, "at the provider", "You said: at the provider")
    button(page, "Sign out").click()
    expect(button(page, f"Sign in with {name}")).to_be_visible()
    assert page.context.cookies() == []


def test_one_signs_out_at_the_provider_too_and_comes_back(open_page: Visitors, database_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch, open_identity_provider() as provider:
        provider.signs_out = True
        patch.setenv("LASTCALL_OIDC_CLIENT_SECRET", CLIENT_SECRET)
        arguments = ["--oidc-issuer", provider.url, "--oidc-client-id", CLIENT_ID]
        with run_server("--database-url", database_url, "--agent", "echo", *arguments) as server:
            page = open_page.visit(server.url)
            name = f"Sign in with {urlsplit(provider.url).netloc}"
            button(page, name).click()
            page.get_by_role("link", name="Continue as ada").click()
            expect_signed_in(page, "ada")
            assert {each["path"] for each in page.context.cookies()} == {"/", "/sign-in"}
            button(page, "Sign out").click()
            page.get_by_role("link", name="Signed out; back").click()
            expect(button(page, name)).to_be_visible()
            assert page.url == f"{server.url}/"
            assert page.context.cookies() == []
            [asked] = provider.signed_out
            assert asked["post_logout_redirect_uri"] == f"{server.url}/sign-in/out"


def test_a_provider_that_is_away_is_told_in_one_line(
    open_page: Visitors, server: ServerProcess, provider: IdentityProvider
) -> None:
    page = open_page.visit(server.url)
    provider.broken = {"/token"}
    button(page, f"Sign in with {urlsplit(provider.url).netloc}").click()
    page.get_by_role("link", name="Continue as ada").click()
    expect(page.get_by_role("alert")).to_contain_text("The identity provider does not answer")
    provider.broken = set()


def around(server: ServerProcess) -> str:
    """The example of the documentation."""
    assert EXAMPLE is not None
    return EXAMPLE[1].replace("https://chat.example", server.url)


def test_the_page_in_a_frame_takes_its_secret_from_the_page_around_it(
    open_page: Visitors, server: ServerProcess, parent: Parent, database_url: str
) -> None:
    made = process("keys", "create", "backend", "--scope", "service", "--database-url", database_url)
    parent.pages |= {"/": around(server), "/secret": "ek_wrong"}
    page = open_page.visit(parent.url)
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("alert")).to_contain_text("not signed in any more")
    expect(frame.get_by_label("Key", exact=True)).to_be_hidden()
    expect(frame.get_by_label("Your name")).to_be_hidden()
    [inner] = page.frames[1:]
    assert violations(inner) == []
    parent.pages["/secret"] = client_secret(server, made.out.strip(), "framed")
    expect(frame.get_by_role("status")).to_have_text("Connected")
    expect(frame.get_by_role("alert")).to_be_hidden()
    frame.get_by_label("Message", exact=True).fill("from a frame")
    frame.get_by_label("Message", exact=True).press("Enter")
    expect(frame.locator("#messages .said")).to_have_text(["from a frame", "You said: from a frame"])
    assert psql(database_url, "SELECT count(*) FROM conversations WHERE user_id = 'framed'") == "1"
    assert inner.url == f"{server.url}/embed"
    assert inner.evaluate(KEPT) in (0, "refused")
    assert violations(inner) == []


def test_no_other_site_shows_the_page(open_page: Visitors, server: ServerProcess, parent: Parent) -> None:
    parent.pages["/"] = around(server)
    page = open_page.visit(parent.other_url)
    expect(page.frame_locator("iframe").locator("#status")).to_have_count(0)


def test_only_the_page_around_it_is_believed(open_page: Visitors, server: ServerProcess, parent: Parent) -> None:
    """Not a frame beside it, and not itself."""
    parent.pages["/"] = around(server).replace("chat.postMessage", "void")
    parent.pages["/"] += f"<iframe name=beside src='{parent.other_url}/beside'></iframe>"
    page = open_page.visit(parent.url)
    frame = page.frame_locator("iframe").first
    expect(frame.get_by_role("status")).to_have_text("Connecting…")
    [inner, beside] = page.frames[1:]
    sockets: list[object] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    inner.evaluate("addEventListener('message', ({ data }) => { window.heard = data?.secret; })")
    beside.evaluate("parent.frames[0].postMessage({ type: 'lastcall.secret', secret: 'ek_x' }, '*')")
    inner.wait_for_function("window.heard === 'ek_x'")
    inner.evaluate("postMessage({ type: 'lastcall.secret', secret: 'ek_own' }, '*')")
    inner.wait_for_function("window.heard === 'ek_own'")
    expect(frame.get_by_role("status")).to_have_text("Connecting…")
    assert sockets == []
    for message in ("null", "17", "{}", "{ type: 'lastcall.secret' }", "{ type: 'lastcall.secret', secret: ['ek_x'] }"):
        page.evaluate(f"frames[0].postMessage({message}, '*')")
    assert sockets == []
    page.evaluate("frames[0].postMessage({ type: 'lastcall.secret', secret: 'ek_y' }, '*')")
    expect(frame.get_by_role("alert")).to_contain_text("not signed in any more")


def client_secret(server: ServerProcess, key: str, user: str) -> str:
    import httpx2

    answer = httpx2.post(
        f"{server.url}/v1/realtime/client_secrets", headers={"authorization": f"Bearer {key}"}, json={"user": user}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["value"])


def test_only_the_page_for_frames_may_be_framed(server: ServerProcess, parent: Parent) -> None:
    import httpx2

    for path, ancestors in (("/embed", parent.url), ("/", "'none'"), ("/console", "'none'"), ("/sign-in", "'none'")):
        policy = httpx2.get(server.url + path).headers["content-security-policy"]
        assert f"frame-ancestors {ancestors}" in policy.split("; "), path


def test_the_page_can_be_installed(open_page: Visitors, server: ServerProcess) -> None:
    page = open_page.visit(server.url)
    found = page.evaluate(
        """async () => {
            const address = document.querySelector("link[rel=manifest]").href;
            const answer = await fetch(address);
            const manifest = await answer.json();
            const icons = await Promise.all(manifest.icons.map(async ({ src, type, sizes }) => {
                const image = new Image();
                image.src = src;
                await image.decode();
                const drawn = sizes === "any" ? "any" : `${image.naturalWidth}x${image.naturalHeight}`;
                return drawn === sizes && (await fetch(src)).headers.get("content-type").startsWith(type);
            }));
            return { type: answer.headers.get("content-type"), display: manifest.display, icons };
        }"""
    )
    assert found == {"type": "application/manifest+json", "display": "standalone", "icons": [True, True, True]}
    errors = page.context.new_cdp_session(page).send("Page.getAppManifest")["errors"]
    assert errors == []
    assert page.locator("meta[name=theme-color]").evaluate_all("all => all.map((each) => each.media)") == [
        "(prefers-color-scheme: light)",
        "(prefers-color-scheme: dark)",
    ]


def test_a_browser_that_keeps_nothing_can_still_be_used(open_page: Visitors, server: ServerProcess) -> None:
    page = open_page.visit("about:blank")
    page.add_init_script(
        "for (const kind of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, kind, { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    page.goto(server.url)
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
