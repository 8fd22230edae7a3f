"""axe-core, run in a page: the rules of WCAG 2.2 AA."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from ..system.official import node

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = """async (tags) => (await axe.run(document, { runOnly: tags })).violations.flatMap(
    ({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`))"""


@cache
def _source() -> str:
    """axe-core, as npm has it. Skips the test where there is no npm."""
    try:
        node.install()
    except node.Unavailable as error:
        pytest.skip(str(error))
    return (node.MODULES / "axe-core" / "axe.min.js").read_text()


def violations(page: Page | Frame) -> list[str]:
    """What breaks a rule in the page as it is now; a line for each element."""
    page.evaluate(_source())  # as an extension would: the page's own rules for scripts do not apply
    found: list[str] = page.evaluate(RUN, RULES)
    return found
