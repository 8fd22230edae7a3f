"""When another instance counts as dead: its host's kernel proves it, or this process has seen it silent for so long.

Nothing here compares times of the database: its clock may be set, and after an outage all heartbeats are old. A watch
measures by this process's own clock, and only while it can look at the database without a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any
from uuid import UUID

from ..runtime.host import ProcessState, process_state
from ..store.records import Suspect

GAP_SECONDS = 1.5  # between two looks; after a longer one, what was seen before it says nothing
DOUBT_SECONDS = 1.0  # of silence, after which a watch should look more often

LEFT = "it left"
PROCESS_GONE = "its process is gone"
CONNECTION_GONE = "its connection is gone"
LEASE_RAN_OUT = "its lease ran out"


@dataclass(frozen=True, slots=True)
class Silence:
    """For how long a suspect has been seen without a sign of life, in seconds.

    heartbeat: without a new one. guard: without a lease connection.
    """

    heartbeat: float
    guard: float


def cause_of_death(suspect: Suspect, seen: Silence, process: ProcessState | None, gone_seconds: float) -> str | None:
    """Why an instance is certainly dead, or None where that is not proven.

    Args:
        suspect: Another instance that owns active sessions.
        seen: For how long this process has seen it silent.
        process: Of the suspect; None where it ran on another host.
        gone_seconds: Without a lease connection and without a heartbeat, after which it is dead. Only on another
            host: where its process may still run, a connection that is gone says nothing.
    """
    if suspect.gone:
        return LEFT
    if process is ProcessState.GONE:
        return PROCESS_GONE
    if process is None and min(seen.heartbeat, seen.guard) >= gone_seconds:
        return CONNECTION_GONE
    return LEASE_RAN_OUT if seen.heartbeat >= suspect.lease_seconds else None


@dataclass(slots=True)
class _Sighting:
    """Since when a suspect looks like this, on Trio's clock (seconds). unguarded: infinite where it is guarded."""

    heartbeat: Any
    silent: float
    unguarded: float


class Watch:
    """Looks at the same instances again and again.

    Args:
        host_id: Of the host that this process runs on; None where it cannot be told.
        gone_seconds: See `cause_of_death`.

    Attributes:
        in_doubt: Whether any of them has shown no sign of life of late, so that the next look should come soon.
    """

    def __init__(self, host_id: str | None, gone_seconds: float) -> None:
        self._host_id = host_id
        self._gone_seconds = gone_seconds
        self._sightings: dict[UUID, _Sighting] = {}
        self._answered = -inf
        self.in_doubt = False

    def forget(self, instance_id: UUID | None = None) -> None:
        """After trouble of this process's own, others must be given the time to come back as well.

        instance_id: the only one that is given it.
        """
        if instance_id is None:
            self._sightings.clear()
        else:
            self._sightings.pop(instance_id, None)

    def look(self, suspects: Sequence[Suspect], asked: float, answered: float) -> Iterator[tuple[Suspect, str]]:
        """Returns those that are dead, and why.

        Args:
            suspects: All others, as the database described them at some moment between `asked` and `answered`.
            asked: When it was asked, on Trio's clock (seconds). Silence is counted up to here.
            answered: When it answered. Silence is counted from here.
        """
        if answered - self._answered > GAP_SECONDS:
            self.forget()
        self._answered = answered
        self._sightings = {each.instance_id: self._sighting(each, answered) for each in suspects}
        self.in_doubt = any(self._silence(each, asked).heartbeat >= DOUBT_SECONDS for each in suspects)
        causes = [(each, self._cause(each, asked)) for each in suspects]
        return ((each, cause) for each, cause in causes if cause is not None)

    def _sighting(self, suspect: Suspect, now: float) -> _Sighting:
        known = self._sightings.get(suspect.instance_id) or _Sighting(None, now, inf)
        # Any other heartbeat is a sign of life, also an earlier one: the database's clock may have been set back.
        silent = known.silent if known.heartbeat == suspect.heartbeat else now
        return _Sighting(suspect.heartbeat, silent, min(known.unguarded, now) if suspect.guard_gone else inf)

    def _silence(self, suspect: Suspect, now: float) -> Silence:
        sighting = self._sightings[suspect.instance_id]
        return Silence(now - sighting.silent, now - sighting.unguarded)

    def _cause(self, suspect: Suspect, now: float) -> str | None:
        same_host = suspect.host_id is not None and suspect.host_id == self._host_id
        process = process_state(suspect.pid, suspect.process_started) if same_host else None
        return cause_of_death(suspect, self._silence(suspect, now), process, self._gone_seconds)
