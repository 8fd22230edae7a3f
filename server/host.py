"""Which processes run on this host, as far as the kernel tells."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
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
