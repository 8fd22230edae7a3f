"""The console in a browser: the truth, what is done there and what comes of it, the rules of WCAG on each screen."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from ..support.axe import violations
from ..support.chat_page import Visitors, button, expect_conversation, said, say
from ..support.databases import new_database, psql
from ..support.processes import run_server
from ..support.webhook_receiver import open_receiver

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

LATER_MS = 120_000
SLOW = "tests.support.scripted_agents:Slow"
LIVE = "SELECT count(*) FROM conversation_sessions WHERE user_id = '{}' AND is_active"
SESSION = "SELECT 'sess_' || replace(session_id::text, '-', '') FROM conversation_sessions WHERE user_id = '{}'"
STRAY = (
    "INSERT INTO conversation_sessions (user_id, instance_id) SELECT '{}', instance_id FROM server_instances"
    " WHERE stopped_at IS NULL AND reaped_at IS NULL"
)
INSTANCE = "SELECT instance_id FROM server_instances WHERE pid = {}"
# Its counts change nothing any more: an older row stays as it was.
SILENCE = (
    "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " RETURN CASE WHEN new.instance_id = '{}' THEN old ELSE new END; END $$;"
    "CREATE TRIGGER keep BEFORE UPDATE ON server_census FOR EACH ROW EXECUTE FUNCTION keep()"
)
KEY = (
    "INSERT INTO api_keys (subject, scope, prefix, secret_hash)"
    " VALUES ('{0}', '{1}', 'sk-', sha256(('sk-' || repeat('{2}', 43))::bytea))"
)
ENDED = """
INSERT INTO conversation_sessions (user_id, is_active, session_start, session_end, end_reason)
SELECT 'of-{0}', false, now() - n * interval '5 min', now() - n * interval '5 min' + interval '90 s',
       (ARRAY['client_closed', 'expired', 'client_lost'])[1 + n % 3] FROM generate_series(1, 200) n
"""
ANSWERED = """
INSERT INTO agent_responses (user_id, session_id, response_id, started_at, first_at, ended_at, outcome, reason,
                             agent, model, input_tokens, output_tokens, cached_tokens)
SELECT user_id, session_id, gen_random_uuid(), session_end - interval '2 s', session_end - interval '1.5 s',
       session_end, CASE WHEN failed THEN 'failed' ELSE 'completed' END, CASE WHEN failed THEN 'agent_error' END,
       'parrot', 'gray', 30, 4, 16
  FROM (SELECT *, row_number() OVER (ORDER BY session_start) % 5 = 0 AS failed FROM conversation_sessions
         WHERE user_id = 'of-{0}' AND session_end < now()) s
"""
FAILED = (
    "UPDATE conversation_sessions SET memory_status = 'failed', memory_error = 'no answer', memory_attempts = 8"
    " WHERE session_id = (SELECT session_id FROM conversation_sessions WHERE user_id = '{}' AND NOT is_active LIMIT 1)"
)
REMEMBERED = "INSERT INTO user_memories (user_id, kind, content) VALUES ('{}', 'note', 'has a cat')"
ENDED_BY_HAND = (
    "WITH begun AS (INSERT INTO conversation_sessions (user_id) VALUES ('{}') RETURNING session_id) SELECT FROM begun"
)
CLOSED = "UPDATE conversation_sessions SET is_active = false WHERE user_id = '{}'"
ADD_WEBHOOK = """async () => {
    const body = JSON.stringify({ url: "https://hooks.example/" });
    const headers = { "content-type": "application/json" };
    return (await fetch("/v1/admin/webhooks", { method: "POST", headers, body })).status;
}"""
GIVEN_UP = """
BEGIN;
UPDATE conversation_sessions SET is_active = false WHERE is_active;
UPDATE webhook_deliveries SET state = 'failed', status = 500, error = 'HTTP 500', finished_at = now()
 WHERE event = 'session.ended';
COMMIT
"""
PAINTED = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""
KINDS = """async (languages) => Promise.all(languages.map(async (language) => {
    const { default: words } = await import(`/static/console-words.${language}.js`);
    const kinds = (value) => typeof value === "object"
        ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, kinds(each)])) : typeof value;
    return kinds(words);
}))"""
USED = """all => all.flatMap((each) => Object.entries(each.dataset))
    .filter(([name]) => name.startsWith("words")).map(([, key]) => key)"""


def console(open_page: Visitors, server: ServerProcess, screen: str = "", width: int = 1200, **context: object) -> Page:
    return open_page.visit(f"{server.url}/console{screen and f'#/{screen}'}", width, **context)


def expect_truth(page: Page, state: str) -> None:
    expect(page.locator("#truth")).to_have_attribute("data-truth", state)


def test_close_in_the_console_ends_the_socket_and_the_page_says_by_whom_and_stays_closed(
    open_page: Visitors, database_url: str
) -> None:
    """Also where the session is on another server than the console."""
    with (
        new_database(database_url) as url,
        run_server("--database-url", url, "--agent", "echo") as server,
        run_server("--database-url", url, "--agent", "echo") as other,
    ):
        page = open_page(other.url, "closed-by-console")
        say(page, "before")
        expect_conversation(page, "before", "You said: before")
        operator = console(open_page, server)
        expect(operator.locator("#truth-numbers")).to_have_text("rows 1 = sockets 1")
        expect(operator.locator("#truth-facts")).to_contain_text("servers 2")
        row = operator.get_by_role("row").filter(has_text="closed-by-console")
        row.get_by_role("button", name="Close…").click()
        operator.get_by_label("Reason (may be empty)").fill("maintenance at noon")
        page.clock.install()
        button(operator, "Close session").click()
        expect(page.get_by_role("status")).to_have_text("Closed")
        expect(page.get_by_role("alert")).to_contain_text(
            "closed by the operator (this machine): “maintenance at noon”."
        )
        expect(row).to_have_count(0)
        page.clock.fast_forward(LATER_MS)
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.get_by_role("status")).to_have_text("Closed")
        assert psql(url, LIVE.format("closed-by-console")) == "0"
        operator.get_by_role("link", name="Audit log").click()
        line = operator.get_by_role("row").filter(has_text="closed a session")
        expect(line).to_contain_text("this machine (API)")
        expect(line).to_contain_text("maintenance at noon")
        line.get_by_role("link").click()
        expect(operator.locator("dl.header")).to_contain_text("this machine: maintenance at noon")
        button(page, "Reconnect").click()
        expect(page.get_by_role("status")).to_have_text("Connected")


def test_after_a_kill_in_mid_answer_the_page_goes_on_and_the_console_shows_the_healed_session(
    open_page: Visitors, database_url: str
) -> None:
    with new_database(database_url) as url:
        with run_server("--database-url", url, "--agent", SLOW) as server:
            page = open_page(server.url, "killed")
            say(page, "tell me")
            expect(page.locator("[data-role=assistant][data-state=streaming] .said")).not_to_be_empty()
            expect(said(page)).to_have_count(2)
            session = psql(url, SESSION.format("killed"))
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(10)
        port = str(urlsplit(server.url).port)
        with run_server("--database-url", url, "--agent", "echo", "--port", port) as again:
            expect(page.get_by_role("status")).to_have_text("Connected")
            say(page, "and on")
            expect(said(page).last).to_have_text("You said: and on")
            operator = console(open_page, again)
            expect_truth(operator, "green")
            expect(operator.locator("#truth-numbers")).to_have_text("rows 1 = sockets 1")
            operator.goto(f"{again.url}/console#/session/{session}")
            expect(operator.locator("dl.header")).to_contain_text("server died")
            expect(operator.locator("dl.header")).to_contain_text("ended")
            expect(operator.locator(".transcript")).to_contain_text("tell me")
            expect(operator.locator(".timeline")).to_contain_text("row closed")


def test_the_light_is_red_with_the_list_while_a_row_has_no_socket(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        open_page(server.url, "healthy")
        page = console(open_page, server)
        expect_truth(page, "green")
        expect(page.locator("#truth-numbers")).to_have_text("rows 1 = sockets 1")
        psql(url, STRAY.format("stray"))
        expect_truth(page, "red")
        expect(page.locator("#truth-numbers")).to_have_text("rows 2 ≠ sockets 1")
        expect(page.get_by_role("status")).to_have_text("Rows and sockets do not agree: 1")
        expect(page.locator("#unmatched a")).to_have_text(psql(url, SESSION.format("stray")))
        expect(page.locator("#unmatched")).to_contain_text("has a row, but no socket")
        assert violations(page) == []
        expect_truth(page, "green")  # the reconciler has closed it
        assert psql(url, LIVE.format("stray")) == "0"


def test_the_light_is_grey_while_nobody_answers(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:
        page = console(open_page, server)
        expect_truth(page, "green")
        server.stop()
        expect_truth(page, "unknown")
        expect(page.get_by_role("status")).to_contain_text("cannot be known right now")
        expect(page.locator("#truth-numbers")).to_have_text("rows ? sockets ?")
        assert violations(page) == []


def test_the_light_is_grey_while_another_server_is_silent(open_page: Visitors, database_url: str) -> None:
    with (
        new_database(database_url) as url,
        run_server("--database-url", url, "--agent", "echo") as server,
        run_server("--database-url", url, "--agent", "echo") as other,
    ):
        page = console(open_page, server)
        expect_truth(page, "green")
        expect(page.locator("#truth-facts")).to_contain_text("servers 2")
        psql(url, SILENCE.format(psql(url, INSTANCE.format(other.process.pid))))
        try:
            expect_truth(page, "unknown")
            expect(page.get_by_role("status")).to_contain_text(f"/{other.process.pid}")
        finally:
            psql(url, "DROP TRIGGER keep ON server_census")
        expect_truth(page, "green")


def test_charts_are_drawn_and_a_reason_filters_the_sessions(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        psql(url, ENDED.format("charts"))
        page = console(open_page, server, "endings")
        expect(page.locator("canvas")).to_have_count(3)
        assert all(page.locator("canvas").nth(place).evaluate(PAINTED) > 4 for place in range(3))
        button(page, "expired · 67").click()
        expect(page.get_by_role("heading", name="Sessions: expired")).to_be_visible()
        expect(page.get_by_role("cell", name="expired", exact=True).first).to_be_visible()
        expect(page.get_by_role("cell", name="client lost", exact=True)).to_have_count(0)
        button(page, "Show more").click()
        expect(page.locator("tbody tr")).to_have_count(67)
        button(page, "1 year").click()
        expect(button(page, "1 year")).to_have_attribute("aria-pressed", "true")


def test_what_answers_took_is_charted_summed_up_and_told_of_each(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        psql(url, ENDED.format("figures"), ANSWERED.format("figures"))
        page = console(open_page, server, "answers")
        expect(page.locator("canvas")).to_have_count(4)
        expect(page.get_by_text("failed · 40").locator(".swatch")).to_have_attribute("data-colour", "3")
        expect(page.get_by_text("cached · ")).to_be_visible()
        button(page, "Day").click()
        expect(page.get_by_role("cell", name="of-figures")).to_have_count(0)
        button(page, "User").click()
        expect(page.get_by_role("cell", name="of-figures")).to_be_visible()
        query = (
            "SELECT 'sess_' || replace(session_id::text, '-', '') FROM agent_responses WHERE outcome = 'failed' LIMIT 1"
        )
        page = console(open_page, server, f"session/{psql(url, query)}")
        expect(page.locator(".timeline")).to_contain_text("answer · 2 s · 34 tokens · failed (agent_error)")
        expect(page.get_by_role("row").filter(has_text="gray")).to_contain_text("500 ms")


def test_the_first_key_is_for_who_makes_it_and_a_reader_changes_nothing(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        page = console(open_page, server, "keys")
        expect(page.get_by_label("Scope").locator("option")).to_have_text(["admin"])
        page.get_by_label("Subject").fill("olga")
        button(page, "Create key").click()
        expect(page.locator(".new-key code")).to_contain_text("sk-")
        expect(page.get_by_role("row").filter(has_text="olga")).to_contain_text("admin")
        psql(url, KEY.format("rita", "reader", "r"), ENDED.format("reader"), FAILED.format("of-reader"))
        psql(url, REMEMBERED.format("of-reader"))
        reader = console(open_page, server)
        reader.get_by_label("Key", exact=True).fill("sk-" + "r" * 43)
        assert violations(reader) == []
        button(reader, "Connect").click()
        expect_truth(reader, "green")
        for screen in ("memory", "keys", "users/of-reader"):
            reader.goto(f"{server.url}/console#/{screen}")
            expect(reader.locator("tbody tr").first).to_be_visible()
            expect(reader.get_by_role("button", name="Retry")).to_have_count(0)
            expect(reader.get_by_role("button", name="Revoke…")).to_have_count(0)
            expect(reader.get_by_role("button", name="Erase…")).to_have_count(0)
            expect(reader.get_by_role("button", name="Forget…")).to_have_count(0)
        expect(reader.get_by_role("cell", name="has a cat")).to_be_visible()
        page.get_by_role("row").filter(has_text="rita").get_by_role("button", name="Revoke…").click()
        button(page, "Revoke").click()
        expect(reader.get_by_label("Key", exact=True)).to_be_focused()
        expect(page.get_by_role("row").filter(has_text="rita").get_by_role("button")).to_have_count(0)


def test_failed_memory_is_retried(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        psql(url, ENDED.format("retry"), FAILED.format("of-retry"))
        page = console(open_page, server, "memory")
        button(page, "Retry").click()
        expect(page.get_by_role("status").filter(has_text="Retried: 1")).to_be_visible()
        expect(button(page, "Retry")).to_have_count(0)


def test_one_memory_is_forgotten_with_its_source_in_view(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        talking = open_page(server.url, "told")
        for text in ("My name is Tilda.", "I live in Berlin."):
            say(talking, text)
            expect(said(talking).last).to_have_text(f"You said: {text}")
        session = psql(url, SESSION.format("told"))
        talking.close()
        page = console(open_page, server, "users/told")
        row = page.get_by_role("region", name="Memories").get_by_role("row").filter(has_text="Berlin")
        expect(row.locator("q")).to_have_text("I live in Berlin.")
        assert violations(page) == []
        row.get_by_role("button", name="Forget…").click()
        expect(page.get_by_role("dialog")).to_contain_text("not learned again")
        page.get_by_role("dialog").get_by_role("button", name="Forget", exact=True).click()
        expect(row).to_have_count(0)
        page.get_by_role("region", name="Memories").get_by_role("link").click()
        expect(page).to_have_url(f"{server.url}/console#/session/{session}")
        expect(page.locator(".made li")).to_have_count(1)
        button(page, "Forget…").click()
        page.get_by_role("dialog").get_by_role("button", name="Forget", exact=True).click()
        expect(page.locator(".made li")).to_have_count(0)
        assert psql(url, "SELECT count(*) FROM user_memories") == "0"
        page.get_by_role("link", name="Audit log").click()
        expect(page.get_by_role("row").filter(has_text="erased a memory")).to_have_count(2)


def test_that_there_is_nothing_is_said_only_once_it_is_known(open_page: Visitors, database_url: str) -> None:
    held: list[Route] = []
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        page = open_page.visit("about:blank")
        page.route("**/v1/admin/sessions?**", lambda route: held.append(route))
        page.goto(f"{server.url}/console#/users/nobody")
        expect(page.get_by_text("Nothing.")).to_be_visible()
        expect(page.get_by_text("No sessions.")).to_be_hidden()
        assert held
        for route in held:
            route.continue_()
        expect(page.get_by_text("No sessions.")).to_be_visible()


def test_a_user_is_erased_only_once_their_name_is_typed(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        psql(url, ENDED.format("erased"))
        page = console(open_page, server, "users")
        page.get_by_role("link", name="of-erased").click()
        expect(page.get_by_role("heading", name="User of-erased")).to_be_focused()
        with page.expect_download() as exported:
            button(page, "Export everything").click()
        assert exported.value.suggested_filename == "user.ndjson"
        assert exported.value.path().read_text().count('"type": "sessions"') == 200
        button(page, "Erase…").click()
        expect(button(page, "Erase")).to_be_disabled()
        page.get_by_label("To confirm, type of-erased").fill("of-erase")
        expect(button(page, "Erase")).to_be_disabled()
        page.get_by_label("To confirm, type of-erased").fill("of-erased")
        assert violations(page) == []
        button(page, "Erase").click()
        expect(page.get_by_role("status")).to_contain_text("Erased: 200 sessions")
        assert psql(url, "SELECT count(*) FROM conversation_sessions") == "0"


def test_webhooks_are_added_tested_retried_and_removed(open_page: Visitors, database_url: str) -> None:
    with (
        open_receiver() as receiver,
        new_database(database_url) as url,
        run_server("--database-url", url, "--agent", "echo") as server,
    ):
        page = console(open_page, server, "webhooks")
        expect(page.get_by_text("No webhooks.")).to_be_visible()
        page.get_by_label("URL").fill("http://hooks.example/")
        button(page, "Add webhook").click()
        expect(page.get_by_role("alert")).to_contain_text("The URL must be https")
        page.get_by_label("URL").fill(receiver.url)
        button(page, "Add webhook").click()
        expect(page.locator(".new-key code")).to_contain_text("whsec_")
        secret = page.locator(".new-key code").inner_text()
        endpoints, deliveries = (page.get_by_role("region", name=name) for name in ("Webhooks", "Deliveries"))
        endpoints.get_by_role("button", name="Test", exact=True).click()
        expect(deliveries.get_by_role("row").filter(has_text="webhook.test")).to_contain_text("delivered")
        receiver.received[0].verify(secret)
        psql(url, ENDED_BY_HAND.format("of-hook"), GIVEN_UP)
        failed = deliveries.get_by_role("row").filter(has_text="session.ended")
        expect(failed).to_contain_text("HTTP 500")
        expect(endpoints.get_by_role("row").last).to_contain_text("1")
        assert violations(page) == []
        page.get_by_label("State").select_option("failed")
        expect(deliveries.get_by_role("row").filter(has_text="webhook.test")).to_have_count(0)
        failed.get_by_role("button", name="Retry", exact=True).click()
        expect(page.get_by_role("status").filter(has_text="Sent again: 1")).to_be_visible()
        page.get_by_label("State").select_option("delivered")
        expect(failed).to_contain_text("delivered")
        failed.get_by_role("link", name="of-hook").click()
        expect(page.locator("dl.header")).to_contain_text("closed by hand")
        page.go_back()
        endpoints.get_by_role("button", name="Remove…", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
        expect(page.get_by_text("No webhooks.")).to_be_visible()
        assert psql(url, "SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit_log") == (
            "webhook.add webhook.test webhook.retry webhook.remove"
        )


LOOKS: dict[str, dict[str, object]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"width": 360, "color_scheme": "light", "is_mobile": True, "has_touch": True},
    "forced colours": {"forced_colors": "active"},
}
SCREENS = ("now", "endings", "answers", "servers", "memory", "keys", "users", "webhooks", "audit")

# What is waited for on some screens: in which table, and what is in the row.
ROWS = {
    "webhooks": (("Webhooks", "https://hooks.example/"), ("Deliveries", "of-hook")),
    "users/of-axe": (("Memories", "has a cat"),),
    "answers": (("Usage", "of-axe"),),
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_screen_keeps_the_rules_of_accessibility(open_page: Visitors, database_url: str, look: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        psql(url, ENDED.format("axe"), ANSWERED.format("axe"), FAILED.format("of-axe"), REMEMBERED.format("of-axe"))
        talking = open_page(server.url, "talking")
        say(talking, "hello")
        expect_conversation(talking, "hello", "You said: hello")
        session = psql(url, SESSION.format("talking"))
        page = console(open_page, server, **LOOKS[look])  # type: ignore[arg-type]
        expect_truth(page, "green")
        assert page.evaluate(ADD_WEBHOOK) == 200
        psql(url, ENDED_BY_HAND.format("of-hook"), CLOSED.format("of-hook"))
        found = {}
        for screen in (*SCREENS, f"session/{session}", "users/of-axe"):
            page.goto(f"{server.url}/console#/{screen}")
            expect(page.locator("#screen :is(tbody tr, canvas, .transcript li, .empty)").first).to_be_visible()
            for region, text in ROWS.get(screen, ()):
                expect(page.get_by_role("region", name=region).get_by_role("row").filter(has_text=text)).to_be_visible()
            found[screen] = violations(page)
            width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width[0] <= width[1], screen
        page.goto(f"{server.url}/console#/session/{session}")
        button(page, "Close…").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        found["closing"] = violations(page)
        assert {screen: broken for screen, broken in found.items() if broken} == {}


def test_the_focus_stays_while_rows_come_and_go(open_page: Visitors, database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        open_page(server.url, "first")
        page = console(open_page, server)
        close = page.get_by_role("row").filter(has_text="first").get_by_role("button", name="Close…")
        close.focus()
        open_page(server.url, "second")
        expect(page.get_by_role("row").filter(has_text="second")).to_be_visible()
        expect(close).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(close).to_be_focused()
        assert psql(url, LIVE.format("first")) == "1"


@pytest.mark.parametrize(
    ("locale", "title"), [("de-CH", "Jetzt"), ("es-MX", "Ahora"), ("zh-CN", "现在"), ("fr-FR", "Now")]
)
def test_the_console_speaks_the_browsers_language(
    open_page: Visitors, chat_server: ServerProcess, locale: str, title: str
) -> None:
    page = console(open_page, chat_server, locale=locale)
    expect(page.locator("#tabs a").first).to_have_text(title)
    expect_truth(page, "green")
    if locale == "es-MX":  # numbers as in the country, not only as in the language
        assert page.evaluate("import('/static/console-dom.js').then(({ number }) => number(12345))") == "12,345"
    for screen in SCREENS:
        page.goto(f"{chat_server.url}/console#/{screen}")
        expect(page.locator("#screen h2").first).to_be_visible()
        assert "undefined" not in page.locator("body").inner_text()
    english, *others = page.evaluate(KINDS, ["en", "de", "es", "zh"])
    assert all(kinds == english for kinds in others)
    assert set(page.locator("*").evaluate_all(USED)) <= set(english)
