"""The pictures of the pages in the documentation. `scripts/screenshots` takes them anew; look at them afterwards."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from lastcall.agents.agent import Piece, Turn, Usage
from lastcall.embedded import postgres as embedded

from .browser import open_browser
from .chat_page import Visitors, said, say
from .databases import new_database, psql
from .embedded_data import embedded_data
from .processes import run_server
from .scripted_agents import ScriptedAgent
from .webhook_receiver import open_receiver

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .processes import ServerProcess

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PLACE: dict[str, Any] = {"locale": "en-GB", "timezone_id": "Europe/Zurich"}
WIDE, PHONE = 1240, 390
LINE_SECONDS = 0.05  # the pace of the agent
AGENT = "tests.support.screenshots:Guide"
shown = {
    f"{socket.gethostname()}/": "chat-1/",
    AGENT: "guide",
}  # in place of names of the machine that takes the pictures

ANSWERS = {
    "My name is Ada, and I live in Zurich.": "Nice to meet you, Ada! What would you like to do in Zurich?",
    "I like climbing.": "Then the **Uetliberg** is close, and the *Alpstein* is worth the train.",
    "Which stars can I see tonight?": "Look south after ten: **Vega**, **Deneb** and **Altair**, the summer triangle.",
    "How far did I hike? I have a list of kilometres.": """Add them up in Python:

```python
def total(kilometres: list[float]) -> str:
    # one decimal is enough on foot
    return f"{sum(kilometres):.1f} km"

print(total([8.4, 12.75, 6]))
```

| Day | Tour | km |
|:----|:-----|---:|
| Sat | Uetliberg to Felsenegg | 8.4 |
| Sun | Wildkirchli and back | 12.8 |

That makes **27.2 km** with Monday's walk.""",
}
PAST = """
INSERT INTO conversation_sessions (user_id, is_active, session_start, session_end, end_reason)
SELECT (ARRAY['ada', 'grace', 'linus', 'katherine', 'alan'])[1 + n % 5], false, began, began + long * interval '1 s',
       (ARRAY['client_closed', 'client_closed', 'idle', 'client_lost', 'expired'])[1 + (n * n) % 5]
  FROM (SELECT n, now() - n * interval '7 min' - interval '20 min' AS began,
               40 + 900 * abs(sin(n)) AS long FROM generate_series(1, 200) n) s;
"""
# The trigger dates each end at the moment in which it is written.
TRUE_AT_ONCE = """
ALTER TABLE conversation_sessions DISABLE TRIGGER guard_session;
UPDATE conversation_sessions SET ended_at = session_end + interval '30 ms' WHERE NOT is_active;
ALTER TABLE conversation_sessions ENABLE TRIGGER guard_session
"""
ANSWERED = """
INSERT INTO agent_responses (user_id, session_id, response_id, started_at, first_at, ended_at, outcome, reason,
                             agent, model, input_tokens, output_tokens, cached_tokens)
SELECT user_id, session_id, gen_random_uuid(), session_end - (2 + r) * interval '1 s',
       session_end - (1.6 + 0.6 * r) * interval '1 s', session_end,
       CASE WHEN r > 0.9 THEN 'failed' WHEN r > 0.8 THEN 'cancelled' ELSE 'completed' END,
       CASE WHEN r > 0.9 THEN 'agent_error' END, 'openai', 'small-1', 300 + (400 * r)::integer,
       40 + (200 * r)::integer, (200 * r)::integer
  FROM (SELECT *, abs(sin(extract(epoch FROM session_start))) AS r FROM conversation_sessions
         WHERE NOT is_active AND duration_seconds > 5) s;
"""
WEBHOOK_FAILED = """
UPDATE webhook_deliveries SET state = 'failed', status = 503, error = 'HTTP 503', finished_at = now(), attempts = 12
 WHERE event = 'session.ended' AND delivery_id = (SELECT min(delivery_id) FROM webhook_deliveries);
"""
STRAY = (
    "INSERT INTO conversation_sessions (user_id, instance_id) SELECT 'grace', instance_id FROM server_instances"
    " WHERE stopped_at IS NULL AND reaped_at IS NULL"
)
SESSION = (
    "SELECT 'sess_' || replace(session_id::text, '-', '') FROM user_memories JOIN conversation_sessions s"
    " ON session_id = source_session_id WHERE s.user_id = 'ada' LIMIT 1"
)
RENAME = """(shown) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); )
        for (const [name, other] of Object.entries(shown))
            if (text.data.includes(name)) text.data = text.data.replaceAll(name, other);
}"""


class Guide(ScriptedAgent):
    """Knows what to say to the words of the pictures."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        question = turn.messages[-1].text
        for line in ANSWERS[question].splitlines(keepends=True):
            await trio.sleep(LINE_SECONDS)
            yield line
        yield Usage(input_tokens=80 + len(question) // 4, output_tokens=len(ANSWERS[question]) // 4)


def take(page: Page, name: str) -> None:
    """A picture of what the window shows."""
    page.evaluate(RENAME, shown)
    page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", caret="hide")


def converse(page: Page, *texts: str) -> None:
    from playwright.sync_api import expect

    for text in texts:
        say(page, text)
        expect(page.locator("[data-role=assistant][data-state=completed]").last).to_be_visible()
        expect(page.get_by_role("button", name="Answer anew")).to_be_visible()
    expect(said(page)).to_have_count(2 * len(texts))


def named(server: ServerProcess, user: str) -> dict[str, Any]:
    """A browser of this user's, who has been here before."""
    name = {"name": "lastcall.user", "value": user}
    return {**PLACE, "storage_state": {"cookies": [], "origins": [{"origin": server.url, "localStorage": [name]}]}}


def chat(visitors: Visitors, server: ServerProcess, url: str) -> list[Page]:
    """Pictures of the chat page; the pages that are still open."""
    from playwright.sync_api import expect

    questions = list(ANSWERS)
    page = visitors(server.url, width=WIDE, **named(server, "ada"), color_scheme="light")
    for told in (questions[:2], questions[2:3], questions[3:]):
        page.get_by_role("button", name="New conversation").click()
        expect(said(page)).to_have_count(0)
        converse(page, *told)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#facts li")).to_have_count(3)
    page.mouse.move(WIDE / 2, 600)
    page.set_viewport_size({"width": WIDE, "height": 820})
    expect(page.locator("[data-token=kwd]").first).to_be_visible()
    page.locator("#scroll").evaluate("each => each.scrollTo(0, each.scrollHeight)")
    take(page, "page")
    page.emulate_media(color_scheme="dark")
    take(page, "page-dark")
    phone = visitors(
        page.url, width=PHONE, **named(server, "ada"), color_scheme="light", is_mobile=True, has_touch=True
    )
    expect(phone.locator("[data-token=kwd]").first).to_be_visible()
    take(phone, "page-phone")
    others = [visitors(server.url, **named(server, user)) for user in ("grace", "linus", "katherine")]
    return [page, phone, *others]


def console(visitors: Visitors, server: ServerProcess, url: str) -> None:
    from playwright.sync_api import expect

    def show(screen: str = "", width: int = WIDE, height: int = 820, **more: object) -> Page:
        page = visitors.visit(f"{server.url}/console#/{screen}", width, **{**PLACE, "color_scheme": "light", **more})
        page.set_viewport_size({"width": width, "height": height})
        expect(page.locator("#screen :is(tbody tr, .transcript li)").first).to_be_visible()
        expect(page.locator("#truth")).to_have_attribute("data-truth", "green")
        expect(page.locator("#truth")).to_contain_text("rows 5 = sockets 5")  # the visitors above
        return page

    take(show(), "console")
    take(show(color_scheme="dark"), "console-dark")
    take(show("now", PHONE, 760, is_mobile=True, has_touch=True), "console-phone")
    take(show("answers", height=1100), "console-answers")
    take(show(f"session/{psql(url, SESSION)}", height=980), "console-session")
    user = show("users/ada", height=620)
    expect(user.get_by_role("region", name="Sessions").locator("tbody tr").first).to_be_visible()
    take(user, "console-user")
    take(show("webhooks", height=620), "console-webhooks")
    page = show(height=480)
    psql(url, STRAY)
    expect(page.locator("#truth")).to_have_attribute("data-truth", "red")
    expect(page.locator("#unmatched a")).to_be_visible()
    take(page, "console-red")


def main() -> None:
    with ExitStack() as stack:
        url = stack.enter_context(new_database(embedded.start(stack.enter_context(embedded_data()))))
        server = stack.enter_context(run_server("--database-url", url, "--agent", AGENT))
        receiver = stack.enter_context(open_receiver())
        shown[receiver.url] = "https://hooks.example/"
        visitors = Visitors(stack.enter_context(open_browser()))
        psql(url, PAST, TRUE_AT_ONCE, ANSWERED)
        hook = visitors.visit(f"{server.url}/console#/webhooks")
        hook.get_by_label("URL").fill(receiver.url)
        hook.get_by_role("button", name="Add webhook").click()
        hook.locator(".new-key code").wait_for()
        hook.close()
        pages = chat(visitors, server, url)
        psql(url, WEBHOOK_FAILED)
        console(visitors, server, url)
        assert visitors.errors == []
        for page in pages:
            page.close()


if __name__ == "__main__":
    main()
