"""This host and its processes, as far as the kernel tells."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_PROC = Path("/proc")
_GROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
_STARTED_FIELD = 19  # of /proc/PID/stat, counted behind the command's closing bracket (proc(5): field 22)


def host_id() -> str | None:
    """This boot and this pid namespace: pids can be compared where it is the same. None: the kernel does not tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def process_started(pid: int) -> int | None:
    """When a process began, in the kernel's clock ticks since boot; None where there is no such process."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")  # a command's name may be any bytes
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[_STARTED_FIELD])


def resident_bytes() -> int | None:
    """What this process holds of the host's memory; None: the kernel does not tell."""
    try:
        return int((_PROC / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def memory_bytes() -> int | None:
    """What this process may hold: the limit of its control group, else the host's memory; None: nobody tells."""
    try:
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    try:
        return min(host, int(_GROUP_MEMORY.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return host


def allow_descriptors(wanted: int) -> int:
    """Raises this process's limit of open files to `wanted`, as far as it may be raised; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else soft
