"""What so many sessions a day need, from what one turn and one session were measured to take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

DAY_SECONDS = 86_400
SESSIONS_A_DAY = (10**4, 10**6, 10**8)
# A user's talk, as far as anything depends on it.
TURNS_OF_SESSION = 10
MESSAGES_OF_TURN = 2
SESSION_SECONDS = 300
PEAK = 3  # times the mean: the busiest hour of a day
KEPT_DAYS = 90
BUSY_MAX = 0.6  # of a core, so that nobody waits long for it
CONNECTIONS_OF_PROCESS = 7
SESSIONS_OF_PROCESS = 5_000  # so many are measured


@dataclass(frozen=True)
class Figures:
    """As measured: microseconds of a processor, and bytes; with indexes, where they are stored."""

    server_turn_us: float
    server_session_us: float
    database_turn_us: float
    database_session_us: float
    wal_turn_bytes: float
    wal_session_bytes: float
    message_bytes: float
    session_bytes: float
    idle_session_bytes: float


@dataclass(frozen=True)
class Machine:
    """What one database machine can be: bought, not measured."""

    cores: int = 32
    disk_bytes: float = 20e12
    wal_bytes_a_second: float = 300e6
    connections: int = 500


@dataclass(frozen=True)
class Need:
    """Of so many sessions a day, in the busiest hour; storage of all days that are kept."""

    sessions_a_day: int
    turns_a_second: float
    sessions_at_once: float
    processes: int
    memory_bytes: float
    connections: int
    database_cores: float
    wal_bytes_a_second: float
    storage_bytes: float

    def shares(self, machine: Machine) -> dict[str, float]:
        """How much of one database machine each of these takes; above 1, it does not do."""
        return {
            "storage": self.storage_bytes / machine.disk_bytes,
            "the write-ahead log": self.wal_bytes_a_second / machine.wal_bytes_a_second,
            "processors of the database": self.database_cores / machine.cores,
            "connections": self.connections / machine.connections,
        }

    def ends_first(self, machine: Machine) -> str:
        """What takes most of the machine, and how much."""
        name, share = max(self.shares(machine).items(), key=lambda each: each[1])
        return f"{name}: {_digits(share)} machines" if share > 1 else f"none; {name}: {_digits(100 * share)} %"


def need(sessions_a_day: int, figures: Figures) -> Need:
    """What they need: no more than multiplication."""
    sessions = PEAK * sessions_a_day / DAY_SECONDS
    turns = sessions * TURNS_OF_SESSION
    server = (turns * figures.server_turn_us + sessions * figures.server_session_us) / 1e6
    database = (turns * figures.database_turn_us + sessions * figures.database_session_us) / 1e6
    messages = TURNS_OF_SESSION * MESSAGES_OF_TURN
    processes = max(
        2, math.ceil(server / BUSY_MAX), math.ceil(sessions * SESSION_SECONDS / SESSIONS_OF_PROCESS)
    )  # 2: one may fail
    return Need(
        sessions_a_day=sessions_a_day,
        turns_a_second=turns,
        sessions_at_once=sessions * SESSION_SECONDS,
        processes=processes,
        memory_bytes=sessions * SESSION_SECONDS * figures.idle_session_bytes,
        connections=processes * CONNECTIONS_OF_PROCESS,
        database_cores=database / BUSY_MAX,
        wal_bytes_a_second=turns * figures.wal_turn_bytes + sessions * figures.wal_session_bytes,
        storage_bytes=sessions_a_day * KEPT_DAYS * (messages * figures.message_bytes + figures.session_bytes),
    )


def rows(figures: Figures, machine: Machine) -> Iterator[tuple[str, ...]]:
    """A row for each thing that is needed, with a column for each number of sessions."""
    needs = [need(each, figures) for each in SESSIONS_A_DAY]
    yield "turns a second", *(_digits(each.turns_a_second) for each in needs)
    yield "sessions at once", *(_digits(each.sessions_at_once) for each in needs)
    yield "server processes", *(f"{each.processes:,}" for each in needs)
    yield "memory of their sessions", *(_bytes(each.memory_bytes) for each in needs)
    yield "connections to the database", *(f"{each.connections:,}" for each in needs)
    yield "cores of the database", *(_digits(each.database_cores) for each in needs)
    yield "write-ahead log a second", *(_bytes(each.wal_bytes_a_second) for each in needs)
    yield f"disk of {KEPT_DAYS} days, with indexes", *(_bytes(each.storage_bytes) for each in needs)
    yield "what ends first", *(each.ends_first(machine) for each in needs)


def _digits(value: float) -> str:
    """Two significant digits."""
    if value == 0:
        return "0"
    rounded = round(value, 1 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{_digits(value)} {unit}"
        value /= 1000
    return f"{_digits(value)} TB"
