"""Answers on the chat page: Markdown, stopping, trying again, changing what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.chat_page import CODE, MARKDOWN, Visitors, button, expect_conversation, said, say
from ..support.databases import psql
from ..support.processes import run_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

HOSTILE = """here
<img src=x onerror="window.hurt = 1"><script>window.hurt = 1</script><iframe src="https://evil.example/"></iframe>
[click](javascript:window.hurt=1) [data](data:text/html,<script>hurt=1</script>) ![dot](https://evil.example/dot.png)
<a href="javascript:window.hurt=1">x</a> [rel](/v1/memories) <javascript:hurt> [v](vbscript:x) [f](file:///etc/passwd)
&lt;b&gt; <style>*{display:none}</style> [e](https://e.example/"onmouseover="hurt=1)

```<img src=x onerror=hurt=1>
</code></pre><script>window.hurt = 1</script>
```
"""
KINDS = ["class", "cmnt", "bool", "deleted", "func", "insert", "kwd", "num", "str", "var"]
# How many tokens a growing text shows of its only block of code: while that is open, closed, complete.
GROWING = """async () => {
    const { showMarkdown } = await import("/static/markdown.js");
    await import("/static/code.js"); // from here on, colours need but a moment
    const element = document.createElement("div");
    document.body.append(element);
    const moment = async () => { for (let turn = 0; turn < 5; turn += 1) await new Promise((go) => setTimeout(go)); };
    const show = async (text, growing) => {
        showMarkdown(element, text, { growing });
        await moment();
        return element.querySelectorAll("[data-token]").length;
    };
    const code = "```js\\nlet one = 1;\\n```";
    const open = [await show(code.slice(0, 14), true), await show(code, true)];
    const closed = await show(`${code}\\n\\nand [more]`, true);
    const figure = element.firstChild;
    const complete = await show(`${code}\\n\\nand [more]\\n\\n[more]: https://example.org/`, false);
    const kept = element.firstChild === figure, links = element.querySelectorAll("a").length;
    element.remove();
    return { open, closed, complete, kept, links };
}"""
# The longest texts that are coloured, of what grammars tend to choke on; by language what changed, or took too long.
CHOKE = """async ([atoms, chars, limit]) => {
    const { grammars } = await import("/static/grammars.js");
    const { tokenizer } = await import("/static/tokenizer.js");
    const found = [];
    for (const [name, rules] of grammars) for (const atom of atoms) {
        const text = atom.repeat(Math.ceil(chars / atom.length)).slice(0, chars);
        let shown = "";
        const began = performance.now();
        const { done } = tokenizer(text, rules, (part) => (shown += part)).next();
        const took = performance.now() - began;
        if (!done || shown !== text || took > limit) found.push([name, atom, done, took]);
    }
    return found;
}"""
ATOMS = [
    "a",
    " ",
    "\n",
    "'",
    '"',
    "`",
    "/*",
    "/ ",
    "-",
    "#\n",
    "\\'",
    '\\"',
    "'a\\",
    "a.",
    "a-",
    "$a",
    "<!--",
    "<a a",
    "{",
    "1",
]
ATOM_CHARS, ATOM_MS_MAX = 10_000, 1000.0
ELEMENTS = ["h3", "strong", "em", "s", "ol", "ul", "blockquote", "table", "hr", "pre"]
FORBIDDEN = "img, script, iframe, style, object, form, input"
ENDLESS = "tests.support.endless_agent:EndlessAgent"
CRASHING = "tests.support.scripted_agents:Crashing"


def test_markdown_is_shown_as_what_it_means(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-markdown")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(page, MARKDOWN)
    answer = page.locator("[data-role=assistant] .said")
    for element in ELEMENTS:
        expect(answer.locator(element).first).to_be_visible()
    expect(answer.locator("ol > li")).to_have_count(2)
    expect(answer.locator("ol ul > li")).to_have_text(["inner"])
    expect(answer.locator("td").last).to_have_css("text-align", "right")
    expect(answer.locator("pre")).to_have_text('print("<b>hi</b>")')
    expect(answer.locator("figcaption span")).to_have_text("python")
    links = answer.locator("a")
    assert links.evaluate_all("all => all.map((each) => each.href)") == [
        "https://example.org/x",
        "https://example.org/bare",
    ]
    assert links.first.get_attribute("rel") == "noopener noreferrer nofollow"
    button(page, "Copy code").click()
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("<b>hi</b>")\n'
    page.locator("[data-role=assistant] .foot").get_by_role("button", name="Copy").click()
    expect(page.locator("[data-role=assistant] .foot").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"You said: {MARKDOWN}"
    assert said(page).first.inner_text() == MARKDOWN, "what the user wrote stays as it was written"


def test_code_is_coloured_in_the_colours_of_its_language(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-code")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    say(page, "`inline` is not coloured")
    expect_conversation(page, "`inline` is not coloured", "You said: inline is not coloured")
    assert "grammars.js" not in asked
    say(page, CODE)
    answer = page.locator("[data-role=assistant] .said").last
    expect(answer.locator("[data-token]").last).to_be_visible()
    kinds = answer.locator("[data-token]").evaluate_all("all => all.map((each) => each.dataset.token)")
    assert set(kinds) == set(KINDS)
    expect(answer.locator("[data-token=cmnt]")).to_have_text("# a comment")
    for text in answer.locator("pre").all_inner_texts():
        assert f"\n{text}\n```" in CODE
    colours = answer.locator("[data-token]").evaluate_all("all => all.map((each) => getComputedStyle(each).color)")
    assert len(set(colours)) == 5
    assert asked.count("grammars.js") == 1
    expect(answer.locator("pre").last.locator("*")).to_have_count(1)  # no language: plain


def test_code_is_coloured_once_it_is_complete_and_stays_as_it_is(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-growing")
    assert page.evaluate(GROWING) == {"open": [0, 0], "closed": 2, "complete": 2, "kept": True, "links": 1}


def test_code_that_grammars_choke_on_is_coloured_without_a_pause(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    assert open_page(chat_server.url).evaluate(CHOKE, [ATOMS, ATOM_CHARS, ATOM_MS_MAX]) == []


def test_code_is_never_markup_and_long_code_stays_plain(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-code-hostile")
    hostile = '<img src=x onerror="hurt=1"></code><script>window.hurt = 1</script>&lt;b&gt;'
    say(page, f"here\n```html\n{hostile}\n```\n\n```__proto__\n1\n```\n\n```js\n{'1 ' * 5_001}\n```")
    answer = page.locator("[data-role=assistant] .said")
    expect(answer.locator("[data-token]").first).to_be_visible()
    expect(answer.locator("pre").first).to_have_text(hostile)
    expect(answer.locator(FORBIDDEN)).to_have_count(0)
    expect(answer.locator("pre").nth(1).locator("[data-token]")).to_have_count(0)
    expect(answer.locator("pre").nth(2).locator("[data-token]")).to_have_count(0)
    assert page.evaluate("window.hurt") is None


def test_hostile_answers_are_inert(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-hostile")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    say(page, HOSTILE)
    answer = page.locator("[data-role=assistant] .said")
    expect(answer).to_contain_text("window.hurt")
    expect(answer.locator("pre")).to_be_visible()
    page.reload()
    expect(answer.locator("pre")).to_be_visible()
    expect(answer.locator(FORBIDDEN)).to_have_count(0)
    schemes = answer.locator("a").evaluate_all("all => all.map((each) => each.protocol)")
    assert set(schemes) == {"https:"}
    attributes = "all => all.flatMap((each) => each.getAttributeNames()).filter((name) => /^on|^style$/.test(name))"
    assert answer.locator("*").evaluate_all(attributes) == []
    assert page.evaluate("window.hurt") is None
    assert not [url for url in asked if "evil" in url]


@pytest.mark.parametrize("text", [">" * 20_000, "*a_" * 20_000, "[" * 20_000, "|a" * 200 + "\n" + "|-" * 200])
def test_text_that_parsers_choke_on_leaves_the_page_usable(
    open_page: Visitors, chat_server: ServerProcess, text: str
) -> None:
    page = open_page(chat_server.url, "page-choke")
    button(page, "New conversation").click()
    say(page, text)
    expect(page.locator("[data-role=assistant][data-state=completed]")).to_have_count(1)
    say(page, "still there?")
    expect(said(page).last).to_have_text("You said: still there?")


def test_escape_stops_an_answer_which_can_be_continued(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", ENDLESS) as server:
        page = open_page(server.url, "page-escape")
        say(page, "go on")
        expect(page.locator("[data-role=assistant] .said")).to_have_text("Well … ")
        page.keyboard.press("Escape")
        expect(page.locator("[data-role=assistant] .note")).to_have_text("stopped")
        expect(page.locator("#turn-text")).to_have_text("The answer was stopped.")
        button(page, "Continue").click()
        expect(said(page)).to_have_text(["go on", "Well … ", "Well … "])


def test_an_answer_that_a_reload_interrupted_says_so_and_can_be_continued(
    open_page: Visitors, database_url: str
) -> None:
    with run_server("--database-url", database_url, "--agent", ENDLESS) as server:
        page = open_page(server.url, "page-interrupted")
        say(page, "go on")
        expect(page.locator("[data-role=assistant] .said")).to_have_text("Well … ")
        page.reload()
        expect(page.locator("[data-role=assistant] .note")).to_have_text("interrupted")
        expect(page.locator("#turn-text")).to_have_text("The answer was interrupted.")
        button(page, "Continue").click()
        expect(said(page)).to_have_text(["go on", "Well … ", "Well … "])


def test_an_answer_is_given_anew(open_page: Visitors, chat_server: ServerProcess, database_url: str) -> None:
    page = open_page(chat_server.url, "page-anew")
    say(page, "once")
    expect_conversation(page, "once", "You said: once")
    first = page.locator("[data-role=assistant]").get_attribute("data-item")
    button(page, "Answer anew").click()
    expect(page.locator(f"[data-item={first}]")).to_have_count(0)
    expect_conversation(page, "once", "You said: once")
    page.reload()
    expect_conversation(page, "once", "You said: once")
    assert psql(database_url, f"SELECT count(*) FROM messages WHERE item_id = '{first}' AND deleted_at IS NULL") == "0"


def test_a_message_is_changed_and_what_came_after_it_is_replaced(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-edit")
    for text in ("one", "tow", "three"):
        say(page, text)
        expect(said(page).last).to_have_text(f"You said: {text}")
    box = page.get_by_label("Message", exact=True)
    box.fill("half a dr")
    button(page, "Edit").nth(1).click()
    expect(box).to_have_value("tow")
    page.keyboard.press("Escape")
    expect(page.locator("#editing")).to_be_hidden()
    expect(box).to_have_value("half a dr")  # not the old words, which the next Enter would send again
    button(page, "Edit").first.click()
    button(page, "New conversation").click()
    expect(box).to_have_value("half a dr")
    page.go_back()
    expect(said(page)).to_have_count(6)
    button(page, "Edit").nth(1).click()
    box.fill("two")
    box.press("Enter")
    expect_conversation(page, "one", "You said: one", "two", "You said: two")
    page.reload()
    expect_conversation(page, "one", "You said: one", "two", "You said: two")


def test_an_answer_that_failed_is_tried_again_with_the_text_kept(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", CRASHING) as server:
        page = open_page(server.url, "page-failed")
        say(page, "my long text")
        expect(page.locator("#turn-text")).to_have_text("The answer failed.")
        expect(page.get_by_role("alert")).to_contain_text("could not answer")
        first = page.locator("[data-role=assistant]").get_attribute("data-item")
        button(page, "Try again").click()
        expect(page.locator(f"[data-item={first}]")).to_have_count(0)
        expect(page.locator("#turn-text")).to_have_text("The answer failed.")
        expect_conversation(page, "my long text", "Well,")


def test_a_message_that_was_refused_keeps_its_text_and_can_be_sent_again(
    open_page: Visitors, database_url: str
) -> None:
    with run_server("--database-url", database_url, "--agent", "echo", "--message-bytes-max", "2000") as server:
        page = open_page(server.url, "page-refused")
        say(page, "x" * 3000)
        expect(page.locator("[data-state=refused] .note")).to_contain_text("too long")
        expect(page.get_by_role("status")).to_have_text("Connected")
        expect(button(page, "Try again")).to_be_visible()
        button(page, "Edit").click()
        box = page.get_by_label("Message", exact=True)
        expect(box).to_have_value("x" * 3000)
        box.fill("short")
        box.press("Enter")
        expect_conversation(page, "short", "You said: short")


def test_messages_say_in_words_who_spoke_and_when(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-words", timezone_id="UTC")
    say(page, "hello")
    expect_conversation(page, "hello", "You said: hello")

    def shown(page: Page) -> None:
        expect(page.locator(".speaker")).to_have_text(["You said:", "The agent said:"])
        expect(page.locator(".message time")).to_have_count(2)
        for time in page.locator(".message time").all():
            expect(time).to_be_visible()

    shown(page)
    page.reload()
    shown(page)
