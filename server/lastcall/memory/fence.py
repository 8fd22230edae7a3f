"""A fence around quotations, so that no text of theirs can pass for instructions. Pure."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence

NONCE_BYTES = 6
ASCII_CHARS_PER_TOKEN = 4

_SPECIAL_TOKENS = re.compile("<[|｜][^<>|｜]{0,64}[|｜]>|<[|｜]|[|｜]>")  # noqa: RUF001 - some models write them wide


def fenced(notice: str, name: str, lines: Sequence[str], tokens_max: int, *, first: Iterable[int] | None = None) -> str:
    """The lines between two marks that nobody can have written before, behind a notice; empty without lines.

    Args:
        notice: What the lines are, for the agent.
        name: Of the opening mark.
        lines: One quotation each, in their order.
        tokens_max: Of all of it, as `tokens_of` counts them. Lines beyond it are left out.
        first: The numbers of the lines, those first that are left out last. Default: their order.
    """
    nonce = secrets.token_hex(NONCE_BYTES)
    head, foot = f"{notice}\n<<<{name} {nonce}>>>", f"<<<end {nonce}>>>"
    left = tokens_max - tokens_of(head) - tokens_of(foot)
    kept = set()
    for number in range(len(lines)) if first is None else first:
        if (size := tokens_of(lines[number])) <= left:
            kept.add(number)
            left -= size
    return "\n".join([head, *(lines[number] for number in sorted(kept)), foot]) if kept else ""


def harmless(text: str) -> str:
    """The text in one line, without invisible characters and without what models take for marks of their own."""
    seen = text if text.isprintable() else "".join(_visible(each) for each in text)
    return " ".join(_SPECIAL_TOKENS.sub(" ", seen).split())


def _visible(character: str) -> str:
    match unicodedata.category(character):
        case "Cf" | "Co" | "Cn" | "Cs":  # zero width, direction marks, tags; private, unassigned, half characters
            return ""
        case "Cc" | "Zl" | "Zp":
            return " "
    return character


def tokens_of(text: str) -> int:
    """About how many tokens a text is; more rather than fewer: a character beyond ASCII counts as one."""
    plain = len(text.encode("ascii", "ignore"))
    return -(-plain // ASCII_CHARS_PER_TOKEN) + len(text) - plain + 1
