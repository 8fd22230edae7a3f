"""This host and its processes, as reported by the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

_PROC = Path("/proc")
_GROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
_STARTED_FIELD = 19  # of /proc/PID/stat, counted behind the command's closing bracket (proc(5): field 22)


def host_id() -> str | None:
    """Identifies this boot and pid namespace, within which pids are comparable; None if the kernel does not say."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def process_started(pid: int) -> int | None:
    """Returns a process's start in clock ticks since boot, or None if it does not exist or is a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")  # a command name may hold any bytes
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[_STARTED_FIELD])


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
