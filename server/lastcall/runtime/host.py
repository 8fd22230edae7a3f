"""This host and its processes, as reported by the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from enum import Enum, auto
from pathlib import Path

_PROC = Path("/proc")
_GROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
_DEAD = ("Z", "X")  # the states of a process that has ended, and perhaps not been waited for
_STARTED_FIELD = 19  # of /proc/PID/stat, counted behind the command's closing bracket (proc(5): field 22)


class ProcessState(Enum):
    """What the kernel says of another process of this host. GONE is proven; UNKNOWN: it may be another one by now."""

    GONE = auto()
    LIVES = auto()
    UNKNOWN = auto()


def host_id() -> str | None:
    """Identifies this boot, pid and time namespace, within which pids and start times are comparable.

    None if the kernel does not say, or /proc belongs to another pid namespace, as a bind mount of the host's does.
    """
    try:
        if (_PROC / "self").readlink().name != str(os.getpid()):
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}{_time_namespace()}"
    except OSError:
        return None


def _time_namespace() -> str:
    """Start times in /proc count from the boot of the reader's own time namespace."""
    try:
        return f"/{(_PROC / 'self/ns/time').stat().st_ino}"
    except FileNotFoundError:  # a kernel without any
        return ""


def process_state(pid: int, started: int | None) -> ProcessState:
    """Returns whether a process of this host still exists.

    That it is not visible proves nothing: /proc may hide other users' processes, or not be mounted.

    Args:
        pid: Its pid.
        started: Its start as `process_started` returned it; None where it could not be read.
    """
    if not _exists(pid):
        return ProcessState.GONE
    fields = _stat(pid)
    if fields is None:
        return ProcessState.UNKNOWN
    if fields[0] in _DEAD:
        return ProcessState.GONE
    if started is None:
        return ProcessState.UNKNOWN
    return ProcessState.LIVES if int(fields[_STARTED_FIELD]) == started else ProcessState.GONE


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it may not be signalled, which takes a process
        return True
    return True


def process_started(pid: int) -> int | None:
    """Returns a process's start in clock ticks since boot, or None if it does not exist or cannot be seen."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in _DEAD else int(fields[_STARTED_FIELD])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the command, which may hold any bytes: its state comes first."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split() or None


def resident_bytes() -> int | None:
    """Returns this process's resident memory in bytes; None if the kernel does not say."""
    try:
        return int((_PROC / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def release_free_memory() -> None:
    """Gives freed memory back to the kernel, where the C library can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes() -> int | None:
    """Returns the bytes of memory this process may use: its cgroup's limit or the host's memory; None if unknown."""
    try:
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    try:
        return min(host, int(_GROUP_MEMORY.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return host


def allow_descriptors(wanted: int) -> int:
    """Raises this process's limit of open files towards `wanted`; returns the limit, or `wanted` if there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else soft
