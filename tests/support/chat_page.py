"""What a person does and sees on the chat page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

# Every construct that answers are shown with.
MARKDOWN = """here

# Big
**bold** *slanted* ~~gone~~ `inline`

1. one
2. two
   - inner

> quoted

| left | right |
|:-----|------:|
| a    | b     |

```python
print("<b>hi</b>")
```

---

[a link](https://example.org/x) and https://example.org/bare"""

# Every kind of token that code is coloured with.
CODE = """here
```python
@cached
def total(count: int = 12) -> Total:  # a comment
    return "text" if True else None
```

```diff
@@ -1 +1 @@
-before
+after
```

```
no language
```"""


class Visitors:
    """Opens the page as new visitors' browsers would. `errors`: what the pages reported as errors."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.errors: list[object] = []

    def __call__(self, url: str, user: str = "", width: int = 1200, **context: object) -> Page:
        """The page, connected. context: of Playwright's `new_context`."""
        page = self.visit(url, width, **context)
        if user:
            name = page.get_by_label("Your name")
            name.fill(user)
            name.press("Enter")
        self.expect_status(page, "Connected")
        return page

    def visit(self, url: str, width: int = 1200, **context: object) -> Page:
        """The page, in whatever state."""
        made = self._browser.new_context(viewport={"width": width, "height": 760}, **context)  # type: ignore[arg-type]
        page = made.new_page()
        page.on("pageerror", lambda error: self.errors.append(error))
        page.goto(url)
        return page

    @staticmethod
    def expect_status(page: Page, text: str) -> None:
        from playwright.sync_api import expect

        expect(page.get_by_role("status")).to_have_text(text)


def say(page: Page, text: str) -> None:
    """Writes a message and sends it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def said(page: Page) -> Locator:
    """The messages' texts."""
    return page.locator("#messages .said")


def expect_conversation(page: Page, *texts: str) -> None:
    """The page shows these messages and nothing is under way."""
    from playwright.sync_api import expect

    expect(said(page)).to_have_text(list(texts))
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def button(page: Page, name: str) -> Locator:
    """The button of exactly this name."""
    return page.get_by_role("button", name=name, exact=True)
