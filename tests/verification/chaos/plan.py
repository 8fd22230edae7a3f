"""The plan of a run: its times, the names of its faults, their seeded schedule, and how clients behave. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from random import Random

SERVER_FAULTS = (
    "server_terminated",
    "server_hung_up",
    "server_quit",
    "server_killed",
    "remote_killed",
    "servers_killed",
    "server_frozen",
    "server_signalled",
    "server_clock_set",
    "log_unread",
)
LINK_FAULTS = ("link_cut_briefly", "link_cut", "remote_link_cut", "first_host_hangs")
DATABASE_FAULTS = (
    "database_restarted",
    "database_killed",
    "database_frozen",
    "database_read_only",
    "database_clock_set",
)
CLOCK_FAULTS = ("database_clock_set",)  # may come with the end of a server
CLIENT_FAULTS = ("client_killed", "client_stopped")
RECEIVER_FAULTS = ("receiver_slow", "receiver_fails", "receiver_cuts", "receiver_down")
ROW_FAULTS = ("row_closed", "row_deleted", "user_erased")
BEHAVIOUR_FAULTS = ("client_reset", "agent")  # caused by the clients' own behaviour
FAULTS = SERVER_FAULTS + LINK_FAULTS + DATABASE_FAULTS + CLIENT_FAULTS + ROW_FAULTS + RECEIVER_FAULTS + BEHAVIOUR_FAULTS

WEIGHTS = {
    "server_terminated": 3,
    "server_killed": 4,
    "remote_killed": 2,
    "server_frozen": 2,
    "link_cut_briefly": 2,
    "database_restarted": 3,
    "database_frozen": 2,
    "row_closed": 2,
}  # of those that are not named: 1
ALONE = frozenset({"server_frozen", *LINK_FAULTS, *DATABASE_FAULTS})
"""Not beside one another, as a rule: their effects could not be told apart."""

LOST_SECONDS = 5.0  # for which the database knows nothing of a server before another host may take it for dead
CLOCK_STEP_SECONDS = 3_600.0
CLOCK_RUN_SECONDS_MAX = 1_200.0  # longer runs could not tell which time was meant by a clock that was set back


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """A run's times, in seconds. The servers' are shorter than their defaults, so that a run sees many ends."""

    seconds: float = 60.0
    lease: float = 3.0
    linked_lease: float = 7.0  # of servers whose link to the database is cut: longer than `LOST_SECONDS`
    ping_interval: float = 2.0
    ping_timeout: float = 2.0
    drain: float = 3.0
    settle: float = 100.0  # until nothing is active or pending; a dead server's claims expire late
    sample: float = 0.5  # between two samples of session_truth

    @property
    def answer_grace(self) -> float:
        """How long a shutdown waits for running responses: the share of the drain in server/lastcall/shutdown.py."""
        return 0.4 * self.drain


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One fault of a lane.

    after: seconds since the fault before it. lasts: seconds, for a fault that has a duration.
    alone: not beside another fault of `ALONE`.
    """

    after: float
    fault: str
    lasts: float = 0.0
    alone: bool = False


def lanes(seed: int, only: Sequence[str], pace: Pace) -> dict[str, Iterator[Step]]:
    """The schedule: endless, the same for the same seed. Lanes run side by side; within a lane, one fault at a time.

    All servers share one lane, so that one of them is always healthy, except in `servers_killed`.
    """
    kinds = {
        "servers": (SERVER_FAULTS + LINK_FAULTS + CLOCK_FAULTS, (0.3, 0.8)),
        "database": (tuple(fault for fault in DATABASE_FAULTS if fault not in CLOCK_FAULTS), (2.0, 5.0)),
        "clients": (CLIENT_FAULTS, (3.0, 5.0)),
        "rows": (ROW_FAULTS, (0.4, 1.2)),
        "receiver": (RECEIVER_FAULTS, (1.0, 3.0)),
    }
    return {
        lane: _steps(Random(f"{seed}:{lane}"), [fault for fault in faults if fault in only], gaps, pace)
        for lane, (faults, gaps) in kinds.items()
        if set(faults) & set(only)
    }


def _steps(random: Random, faults: Sequence[str], gaps: tuple[float, float], pace: Pace) -> Iterator[Step]:
    for fault in _order(random, faults):
        alone = fault in LINK_FAULTS or (fault in ALONE and random.random() < 0.8)
        yield Step(random.uniform(*gaps), fault, _lasts(random, fault, pace), alone)


def _order(random: Random, faults: Sequence[str]) -> Iterator[str]:
    """Each fault once, so that also a short run has most of them; then by their weights."""
    yield from random.sample(faults, len(faults))
    weights = [WEIGHTS.get(fault, 1) for fault in faults]
    while True:
        yield random.choices(faults, weights)[0]


def _lasts(random: Random, fault: str, pace: Pace) -> float:
    """How long a fault lasts: where others take over, until they surely have."""
    ranges = {
        "server_frozen": (pace.lease + 1.5, pace.lease + 2.5),
        "link_cut_briefly": (0.5, LOST_SECONDS - 0.2),
        "link_cut": (pace.linked_lease + 1.5, pace.linked_lease + 2.5),
        "remote_link_cut": (pace.linked_lease + 1.5, pace.linked_lease + 2.5),
        "first_host_hangs": (8.0, 10.0),
        "log_unread": (3.0, 5.0),
        "database_frozen": (0.5, 1.2 * pace.lease),
        "database_killed": (0.1, 1.0),
        "database_read_only": (1.0, 4.0),
        "receiver_slow": (2.0, 4.0),
        "receiver_fails": (1.0, 3.0),
        "receiver_cuts": (1.0, 3.0),
        "receiver_down": (1.0, 4.0),
    }
    return random.uniform(*ranges[fault]) if fault in ranges else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """How one visit goes.

    turns: a mark for each turn that the agent obeys, or "". think_seconds: of silence after each turn.
    ending: close, fin, reset, garbage, or stay (for as long as the server allows).
    returns: the visit goes on with the same user and conversation as the one before.
    """

    turns: Sequence[str]
    think_seconds: float
    ending: str
    returns: bool


MARKS = ("#slow", "#raise", "#hang", "#forget")


def behaviour(random: Random, only: Sequence[str], *, patient: bool) -> Behaviour:
    """One visit's course. patient: it chats until a fault ends it."""
    count = 40 if patient else random.choice((1, 1, 1, 2))
    turns = [_mark(random, only) for _ in range(count)]
    endings = ["close"] * 12 + ["fin"] * 2 + ["garbage"] * 2 + ["stay"] * 2
    if "client_reset" in only:
        endings += ["reset"] * 4
    think_seconds = random.uniform(1.0, 3.0) if patient else random.choice((0.2, 0.5, 1.0, 2.0))
    return Behaviour(turns, think_seconds, random.choice(endings), random.random() < 0.25)


def _mark(random: Random, only: Sequence[str]) -> str:
    return random.choice(MARKS) if "agent" in only and random.random() < 0.12 else ""
