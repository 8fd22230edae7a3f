"""What enough seeds have to reach: kinds of endings, faults, requests and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from lastcall.store.records import EndReason

from .fakes.agent import MEMORY_MARKS, REPLY_MARKS
from .plan import CLIENT_CAUSES, ENDINGS, FAULTS, OPENINGS, REQUESTS, SERVER_CAUSES
from .timed_faults import STATES

SEEDS_MIN = 1_500  # with fewer, something may be missing by chance
# A row that is closed already, or that was never written, keeps neither of the first two; worlds have no keys, and the
# memory of the machine.
NEVER_WRITTEN = {EndReason.CLOSED_ELSEWHERE, EndReason.REFUSED, EndReason.REVOKED, EndReason.OVERLOADED}
ERRORS = ("before", "after", "refused", "slow")
OPERATIONS_HIT = (
    "append_items", "begin_session", "claim_memory", "close_instance_sessions", "end_session", "finish_memory",
    "load_history", "open_lease_connection", "recall", "renew", "suspects",
)  # fmt: skip


def expected() -> dict[str, frozenset[str]]:
    """The names that have to occur, by kind."""
    pairs = {(server, client) for server in SERVER_CAUSES for client in CLIENT_CAUSES}
    pairs |= {(one, two) for one in SERVER_CAUSES for two in SERVER_CAUSES if one < two}
    return {
        "reason": frozenset(reason.value for reason in EndReason if reason not in NEVER_WRITTEN),
        "ending": frozenset(ENDINGS) - {"stay"},
        "opening": frozenset(OPENINGS),
        "request": frozenset(REQUESTS),
        "fault": frozenset(FAULTS),
        "agent": frozenset(REPLY_MARKS + MEMORY_MARKS),
        "overlap": frozenset("+".join(sorted(pair)) for pair in pairs),
        "store": frozenset(f"{name}/{error}" for name in OPERATIONS_HIT for error in ERRORS),
        "process": frozenset({"exited", "crashed", "forced"}),
        "memory": frozenset({"done", "failed", "none"}),
        "state": STATES,
    }


def missing(counts: Mapping[str, Counter[str]]) -> list[str]:
    """The names that were expected and did not occur, as "kind: name"."""
    return [
        f"{kind}: {name}"
        for kind, names in expected().items()
        for name in sorted(names)
        if not counts.get(kind, Counter())[name]
    ]
