"""The check of search by meaning: whether it is wanted, and what it lacks."""

from __future__ import annotations

from ..config import Settings
from ..memory.meaning.encoder import EXTRA, is_installed
from ..runtime.check import Check, ok, warn
from ..store.postgres import MEANING


def is_wanted(settings: Settings) -> bool:
    """Whether a server with these settings looks for what meanings need in the database."""
    return settings.meaning is not False and is_installed()


def check_extra(settings: Settings) -> Check:
    """Of this host; what the database lacks is told by its own check. A server without the extra lacks nothing."""
    words_only = "turns of the past are found by their words only"
    if settings.meaning is False:
        return ok(MEANING, f"{words_only} (--no-meaning)")
    if is_installed():
        return ok(MEANING, f"{EXTRA} is installed")
    if settings.meaning:
        return warn(MEANING, f"{EXTRA} is not installed: {words_only}", f"pip install '{EXTRA}', or drop --meaning")
    return ok(MEANING, f"{words_only}; by meaning, too, with {EXTRA}")
