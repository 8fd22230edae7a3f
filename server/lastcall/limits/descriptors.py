"""How many sockets may be open at once: within the settings, and within the limit of open files."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Settings
from ..runtime.check import Check, ok, warn
from ..runtime.host import allow_descriptors
from .limit import SPARE_SOCKETS

SPARE_DESCRIPTORS = 128  # beyond the sockets: for database connections, files and the agent
SOCKETS_MIN = 16  # even where there are no descriptors for them: with fewer, a server is of no use


@dataclass(frozen=True, slots=True)
class SocketAllowance:
    """sockets: that may be open at once. check: whether these are as many as the settings need."""

    sockets: int
    check: Check


def socket_allowance(settings: Settings) -> SocketAllowance:
    """Raises this process's limit of open files as far as it may.

    Refusing a socket is harmless; a process out of descriptors would also fail to open files and database connections.
    """
    wanted = settings.connections_max + SPARE_SOCKETS
    descriptors = wanted + SPARE_DESCRIPTORS
    allowed = allow_descriptors(descriptors) - SPARE_DESCRIPTORS
    if allowed >= wanted:
        return SocketAllowance(wanted, ok("open_files", f"{descriptors} may be open, for {wanted} sockets"))
    sockets = max(allowed, SOCKETS_MIN)
    found = f"the limit of open files allows {sockets} sockets, but --connections-max needs {wanted}"
    lower = (
        f"or --connections-max {sockets - SPARE_SOCKETS}" if sockets > SPARE_SOCKETS else "or lower --connections-max"
    )
    mend = f"ulimit -n {descriptors} (systemd: LimitNOFILE={descriptors}), {lower}"
    return SocketAllowance(sockets, warn("open_files", found, mend))
