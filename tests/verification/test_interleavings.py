"""The interleavings of the SQL: a sample of them holds, and each fault that is put into the SQL is reported.

`scripts/simulate --interleavings` goes through all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from click.testing import CliRunner
from lastcall.store.queries import QUERIES, SCHEMA

from .interleavings.__main__ import interleavings
from .interleavings.database import Source, run
from .interleavings.orders import Failure, explore
from .interleavings.overlaps import explore_overlaps
from .interleavings.replay import again, parse
from .promises import Promise

LENGTH = 3
BY_ITSELF = ("begin:A", "append-user:A", "end:A", "repair:hand", "claim:A", "finish:A", "redate:hand", "stop:A")
SETUPS = ("begin:A append-user:A", "begin:A append-reply:A silence judge:B look:hand")
MEETING = ("append-user:A", "begin-append:A", "end-late:A", "leave:A", "renew:A", "reap:A-by-B", "repair:hand")


def test_every_order_of_a_few_statements_keeps_the_promises(database_url: str) -> None:
    found = run(explore(database_url, Source(), length=LENGTH, compare=0.2, lanes=2))
    assert [failure for failure in found.failures if failure.broken] == []
    assert (found.length, found.orders(1)) == (LENGTH, 23)
    assert found.orders(LENGTH) > 10_000
    assert found.compared > 0


def test_merged_orders_cover_the_same_as_each_order_by_itself(database_url: str) -> None:
    apart = run(explore(database_url, Source(), length=LENGTH, names=BY_ITSELF, apart=True, lanes=2))
    merged = run(explore(database_url, Source(), length=LENGTH, names=BY_ITSELF, lanes=2))
    assert (apart.failures, merged.failures) == ([], [])
    assert apart.orders(LENGTH) == merged.orders(LENGTH) == apart.steps
    assert merged.steps < apart.steps


def test_overlapping_statements_have_the_effect_of_some_order(database_url: str) -> None:
    found = run(explore_overlaps(database_url, Source(), setups=SETUPS, names=MEETING, lanes=2))
    assert found.failures == []
    assert found.pairs > 2 * len(MEETING) ** 2
    assert set(found.outcomes) == {"went through", "waited", "skipped"}


@dataclass(frozen=True)
class Fault:
    """A change of the SQL, and where it shows.

    query: the statement that is changed; None: the schema. promise, reported: of a line of the first failure.
    """

    query: str | None
    swaps: Mapping[str, str]
    names: Sequence[str]
    promise: Promise
    reported: str
    setups: Sequence[str] = ()
    length: int = 4

    def is_in(self, failure: Failure) -> bool:
        return any(each.promise is self.promise and self.reported in each.how for each in failure.broken)

    @property
    def source(self) -> Source:
        text = SCHEMA if self.query is None else QUERIES[self.query]
        for old, new in self.swaps.items():
            assert old in text, "the SQL has changed: so must the fault"
            text = text.replace(old, new)
        return Source(schema=text) if self.query is None else Source(queries={**QUERIES, self.query: text})


REAPING = ("begin:A", "append-user:A", "silence", "judge:B", "renew:A", "reap:A-by-B")
SWEEPING = ("begin:A", "silence", "look:hand", "renew:A", "sweep:hand")
MEMORY = ("visit:A", "claim:A", "claim:B", "finish:A", "finish:B")
CLOSING = ("begin:A", "append-user:A", "end:A", "repair:hand", "recode:hand", "plain:hand")
LIVING = "AND reaped_at IS NULL AND stopped_at IS NULL"
FENCE = "ids_of(items, 'session_id')) OFFSET 0 FOR SHARE SKIP LOCKED) locked"

FAULTS = {
    "an append to a closed row": Fault(
        None,
        {FENCE + "\n     WHERE is_active;": FENCE + ";"},
        CLOSING,
        Promise.NO_GHOST,
        "an item was stored after the row closed",
    ),
    "an append without its lock": Fault(
        None,
        {FENCE: "ids_of(items, 'session_id')) OFFSET 0) locked"},
        ("append-user:A", "end:A"),
        Promise.SERIALIZABLE,
        "no order of them",
        ("begin:A",),
    ),
    "an end of an ended row": Fault(
        None,
        {"FOR NO KEY UPDATE SKIP LOCKED) locked WHERE is_active);": "FOR NO KEY UPDATE SKIP LOCKED) locked);"},
        CLOSING,
        Promise.AS_MODELLED,
        "answered 'refused'",
    ),
    "a bulk close of everybody": Fault(
        "close_instance_sessions",
        {"instance_id = $1": "$1::uuid IS NOT NULL"},
        ("leave:A",),
        Promise.NONE_SWEPT,
        "somebody else's row",
    ),
    "a reap on an old judgement": Fault(
        "reap_instance",
        {"heartbeat_at = $2": "$2::timestamptz IS NOT NULL"},
        REAPING,
        Promise.NONE_SWEPT,
        "declared dead, though",
        length=5,
    ),
    "a reap that leaves the rows": Fault(
        "reap_instance",
        {"WHERE is_active\n": "WHERE NOT is_active\n"},
        REAPING,
        Promise.NO_ORPHAN,
        "its owner was declared dead",
    ),
    "a reap that dates a silent session late": Fault(
        "reap_instance", {"coalesce(\n": "(\n", ", free.heartbeat_at)))": ")))"}, REAPING, Promise.AS_MODELLED, "end is"
    ),
    "a sweep of who was seen again": Fault(
        "reap_instance",
        {"heartbeat_at = $2": "$2::timestamptz IS NOT NULL"},
        SWEEPING,
        Promise.NONE_SWEPT,
        "declared dead, though",
        length=6,
    ),
    "a lease renewed after death": Fault(
        "renew_instance", {LIVING: ""}, ("stop:A", "renew:A"), Promise.NO_GHOST, "answered 'renewed'"
    ),
    "a session begun after death": Fault(
        None, {LIVING: ""}, ("stop:A", "begin:A"), Promise.NO_ORPHAN, "a dead instance began a session"
    ),
    "a session begun during death": Fault(
        "reap_instance",
        {"heartbeat_at = $2 FOR UPDATE": "heartbeat_at = $2"},
        ("begin:A", "reap:A-by-B"),
        Promise.SERIALIZABLE,
        "no order of them",
        ("silence suspect:B",),
    ),
    "an end without its memory": Fault(
        None, {"AND role = 'user'": "AND role = 'nobody'"}, CLOSING, Promise.MEMORY_ONCE, "closed with memory none"
    ),
    "an end that can be rewritten": Fault(
        None, {"IF NEW IS DISTINCT FROM permitted THEN": "IF false THEN"}, CLOSING, Promise.ONE_END, "the end"
    ),
    "an end before its start": Fault(
        None,
        {"greatest(NEW.session_start, least(": "greatest(NULL, least("},
        ("begin:A", "end-late:A"),
        Promise.AS_MODELLED,
        "'refused'",
    ),
    "memory that is claimed twice": Fault(
        None, {"AND memory_due_at <= now()": ""}, MEMORY, Promise.AS_MODELLED, "answered 'claimed 2'"
    ),
    "memory that is applied twice": Fault(
        None,
        {"FROM free WHERE memory_status = 'pending'": "FROM free"},
        (*MEMORY, "silence"),
        Promise.MEMORY_ONCE,
        "memory is done, applied 2 times",
        length=6,
    ),
    "memory that is applied without its mark": Fault(
        None,
        {"memory_status = 'done', memory_finalized_at = now(), ": ""},
        MEMORY,
        Promise.MEMORY_ONCE,
        "memory is pending",
    ),
}


def failures_of(url: str, fault: Fault, source: Source) -> list[Failure]:
    if fault.setups:
        return run(
            explore_overlaps(url, source, setups=fault.setups, names=fault.names, lanes=1, failures_max=1)
        ).failures
    return run(explore(url, source, length=fault.length, names=fault.names, lanes=1, failures_max=1)).failures


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_sql_is_reported(database_url: str, name: str) -> None:
    fault = FAULTS[name]
    failure, *_ = failures_of(database_url, fault, fault.source)
    assert fault.is_in(failure)


@pytest.mark.parametrize("name", ["an end that can be rewritten", "a session begun during death"])
def test_a_failure_can_be_replayed_and_holds_without_the_fault(database_url: str, name: str) -> None:
    fault, steps = FAULTS[name], list[str]()
    failure, *_ = failures_of(database_url, fault, fault.source)
    once_more, *_ = run(again(database_url, fault.source, parse(failure.order), steps.append))
    assert fault.is_in(once_more)
    assert len(steps) >= len(parse(failure.order))
    assert run(again(database_url, Source(), parse(failure.order), steps.append)) == []


@pytest.mark.parametrize(
    ("only", "reported"),
    [
        ("begin:A fly:A", "there is no statement 'fly:A'"),
        ("begin:A / end:A", "an overlap is written"),
        ("begin:A / end:A / commit", "two or three statements"),
        ("begin:A / end:A@1 & end:A / commit", "cannot be paused"),
    ],
)
def test_an_order_that_cannot_be_parsed_is_refused(only: str, reported: str) -> None:
    answer = CliRunner().invoke(interleavings, ["--only", only])
    assert answer.exit_code == 2
    assert reported in answer.output
