"""Where the servers of a run stand: on this host or another, with or without links to the database that can fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from .clock import faketime
from .plan import CLOCK_RUN_SECONDS_MAX, LINK_FAULTS, Pace

LINKED = "linked"
REMOTE = "remote"
HERE = "here"
ELSEWHERE = ("unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
"""For a host_id and a host name of its own: a pid namespace stands for another host."""
SET_HOSTNAME = 'echo "$0" >/proc/sys/kernel/hostname; exec "$@"'


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs. hosts: how many its URL names, each a link; 0: the database's own socket."""

    name: str
    lease: float
    hosts: int


def places(count: int, pace: Pace) -> list[Place]:
    """One for each server. Remote ones only where this process may make namespaces."""
    here = Place(HERE, pace.lease, 0)
    linked = Place(LINKED, pace.linked_lease, 2)
    remote = Place(REMOTE, pace.linked_lease, 1) if remote_problem() is None else here
    return [(here, linked, remote)[number % 3] for number in range(count)]


def remote_problem() -> str | None:
    """Why no server can stand on another host, or None."""
    if os.geteuid() != 0:
        return "it needs root, to run a server in a pid namespace of its own"
    if shutil.which(ELSEWHERE[0]) is None:
        return "it needs unshare (util-linux)"
    return None


def left_out(servers: Sequence[Place], pace: Pace) -> dict[str, str]:
    """Returns the faults that cannot be caused here, with the reason."""
    names = {place.name for place in servers}
    reasons: dict[str, str] = {}
    for fault in LINK_FAULTS:
        if LINKED not in names:
            reasons[fault] = "it needs 2 servers"
    for fault in ("remote_killed", "remote_link_cut"):
        if REMOTE not in names:
            reasons[fault] = remote_problem() or "it needs 3 servers"
    for fault in ("server_clock_set", "database_clock_set"):
        if faketime() is None:
            reasons[fault] = "it needs libfaketime (Debian's package faketime)"
    if pace.seconds > CLOCK_RUN_SECONDS_MAX:
        reasons["database_clock_set"] = f"only in runs of at most {CLOCK_RUN_SECONDS_MAX:.0f} s"
    return reasons


def link_names(port: int, place: Place) -> list[str]:
    """Returns the names of the links of a server's URL, in their order."""
    return [f"{port}-{number}" for number in range(place.hosts)]


def elsewhere(hostname: str, command: Sequence[str]) -> list[str]:
    """Returns a command that runs another one as on a host of this name."""
    return [*ELSEWHERE, "sh", "-c", SET_HOSTNAME, hostname, *command]
