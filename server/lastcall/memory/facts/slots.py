"""What facts are about. Those of one slot are about the same thing. Pure."""

from __future__ import annotations

ONE_VALUED = frozenset({"name", "home", "employer", "age", "relationship", "diet", "vehicle"})
"""A new value takes the place of the old one; so for each `favourite:…`. schema.sql has the same list."""
FAVOURITE = "favourite:"
MANY_VALUED = (
    "origin",
    "need",
    "health",
    "taste",
    "occupation",
    "study",
    "language",
    "pet",
    "owns",
    "activity",
    "household",
    "family",
    "birthday",
    "about",
    "event",
    "plan",
    "note",
)


def is_one_valued(slot: str) -> bool:
    """Whether a new value supersedes the old one."""
    return slot in ONE_VALUED or (slot.startswith(FAVOURITE) and slot != "favourite:thing")
