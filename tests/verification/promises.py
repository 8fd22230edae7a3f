"""The one list of promises: what every prover checks, and the ids under which it reports what was broken.

I1 to I8 are the invariants of the design. The others are as absolute, but are not about sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

PROVERS = ("simulation", "checkpoints", "interleavings", "chaos", "hostile", "mutants")
"""Each is a package here. `mutants` breaks the promises on purpose, and expects the others to notice."""


class Promise(StrEnum):
    """The ids, as they stand in reports and in the keys of `--json`."""

    NO_ORPHAN = "I1 no orphan"
    NO_GHOST = "I2 no ghost"
    ONE_END = "I3 one end"
    MEMORY_ONCE = "I4 memory once"
    NOTHING_LOST = "I5 nothing lost"
    NONE_SWEPT = "I6 none swept"
    BOUNDED = "I7 bounded"
    CONTAINED = "I8 contained"
    REPORTED = "reported"
    VIEWS_AGREE = "views agree"
    SECRETS_KEPT = "secrets kept"
    AS_MODELLED = "as modelled"
    SERIALIZABLE = "serializable"
    REPEATABLE = "repeatable"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is promised, in one sentence, and the provers that check it."""

    sentence: str
    provers: frozenset[str]


def _entry(sentence: str, *provers: str) -> Entry:
    return Entry(sentence, frozenset(provers))


PROMISES: Mapping[Promise, Entry] = MappingProxyType(
    {
        Promise.NO_ORPHAN: _entry(
            "A row is active only while a living server holds its connection, but for the published bound.",
            *PROVERS,
        ),
        Promise.NO_GHOST: _entry(
            "Once its row is closed, a session stores and acknowledges nothing, and its socket closes within a second.",
            "simulation", "checkpoints", "interleavings", "chaos", "mutants",
        ),
        Promise.ONE_END: _entry(
            "A session's end is written once, is never rewritten, and says truly when and why the session ended.",
            "simulation", "checkpoints", "interleavings", "chaos", "mutants",
        ),
        Promise.MEMORY_ONCE: _entry(
            "Each closed session in which the user spoke is remembered exactly once, or failed with its error visible.",
            "simulation", "checkpoints", "interleavings", "chaos", "mutants",
        ),
        Promise.NOTHING_LOST: _entry(
            "What was acknowledged is stored, once and unchanged.",
            "simulation", "checkpoints", "interleavings", "chaos", "mutants",
        ),
        Promise.NONE_SWEPT: _entry(
            "Only sessions whose server is proven dead are closed on its behalf.",
            "simulation", "checkpoints", "interleavings", "chaos", "mutants",
        ),
        Promise.BOUNDED: _entry(
            "Every wait, queue, connection and shutdown stays within its bound.",
            *PROVERS,
        ),
        Promise.CONTAINED: _entry(
            "No client, agent or failure ends another connection or the server.",
            "simulation", "checkpoints", "chaos", "hostile", "mutants",
        ),
        Promise.REPORTED: _entry(
            "Every end and finished memory reaches each webhook at least once, under one id and in the same words.",
            "chaos", "mutants",
        ),
        Promise.VIEWS_AGREE: _entry(
            "What `session_truth` and `lastcall orphans` say of a session is true, outside the published bounds.",
            "chaos",
        ),
        Promise.SECRETS_KEPT: _entry("No secret is written to the log.", "hostile"),
        Promise.AS_MODELLED: _entry(
            "Each SQL statement does and answers what a model of the promises, which knows no SQL, expects.",
            "interleavings",
        ),
        Promise.SERIALIZABLE: _entry(
            "SQL statements at the same moment have the effect of some order, one after the other.",
            "interleavings",
        ),
        Promise.REPEATABLE: _entry(
            "What is repeated goes the same way; a proof that does not repeat proves nothing.",
            "checkpoints", "interleavings",
        ),
    }
)  # fmt: skip
