"""What sessions and requests hold in memory: counted as it changes, and who gives way when it is too much."""

from __future__ import annotations

import math
from collections.abc import Callable
from sys import getsizeof

import trio

from ..runtime.host import memory_bytes, release_free_memory, resident_bytes
from .limit import MEMORY_SHARE

MIB = 1_048_576
REFUSE_SHARE = 0.85  # of the limit; beyond it, who holds more than a fair share may not hold more
ROOM_SHARE = 0.95  # of the limit; what the endings beyond the limit make it
SHARE_BYTES_MIN, SHARE_BYTES_MAX = 65_536, MIB  # of the fair share
CHECK_SECONDS = 0.1  # between readings of the process's memory, unless it grows faster
CHECK_BYTES = MIB  # of growth, after which it is read again
TRIM_BYTES = 16 * MIB  # of freed memory that are worth to be given back
TRIM_SECONDS = 5.0  # between two attempts: each takes some milliseconds
VALUE_BYTES = 96  # an object of Python for each JSON value, about


def text_bytes(text: str) -> int:
    """About what a text takes in memory. Once it was encoded, any but an ASCII one also keeps its UTF-8."""
    return getsizeof(text) * (1 if text.isascii() else 2)


def json_bytes(text: str | bytes) -> int:
    """About what the values of a JSON text take in memory."""
    if isinstance(text, str):
        values = text.count(",") + text.count("[") + text.count(":")
    else:
        values = text.count(b",") + text.count(b"[") + text.count(b":")
    return getsizeof(text) + VALUE_BYTES * values


class MemoryBudget:
    """The memory of the process, and the accounts of those who hold it.

    Python keeps freed memory, so the process does not shrink when a session ends. What was counted and has been freed
    is used again before the process grows, so it counts as free. Else freed bytes would end one session after another.

    Args:
        mib_max: The limit in MiB. None: a share of what is available.
        processes: Among how many that share is divided.
        resident: The bytes that the process holds; None where nobody knows.

    Attributes:
        held: The bytes that all accounts hold. Accounts add to it themselves, a dozen times a turn.
        check_at: From so many on, they call `check`.
    """

    def __init__(
        self, mib_max: int | None, resident: Callable[[], int | None] = resident_bytes, processes: int = 1
    ) -> None:
        available = memory_bytes()
        self._limit = mib_max * MIB if mib_max else available * MEMORY_SHARE / processes if available else math.inf
        self._resident_bytes = resident
        self._resident = self._base = resident() or 0
        self._accounts: set[MemoryAccount] = set()
        self._peak = 0  # what was counted when the process held the most
        self.check_at = CHECK_BYTES
        self._next_check = self._next_trim = -math.inf
        self.held = 0

    def account(self, end: Callable[[], None] | None = None) -> MemoryAccount:
        """Opens an account. end: ends its owner, to free what it holds; None: that will end soon by itself."""
        account = MemoryAccount(self, end)
        self._accounts.add(account)
        return account

    @property
    def used(self) -> int:
        """The bytes in use, freed ones not among them."""
        return max(self._base + self.held, self._resident + self.held - self._peak)

    def exceeded(self) -> bool:
        """Whether the process holds more than its limit."""
        self._check_in_time()
        return self.used > self._limit

    def fits(self, size: int) -> bool:
        """Whether so many bytes more keep within the limit."""
        self._check_in_time()
        return self.used + size <= self._limit

    def refuses(self, account: MemoryAccount, size: int) -> bool:
        """Whether memory is short, and the account with so many bytes more would hold more than a fair share of it."""
        self._check_in_time()
        return self.used + size > REFUSE_SHARE * self._limit and account.held + size > self.fair_share

    @property
    def fair_share(self) -> float:
        """The bytes that each account may hold in any case."""
        share = (REFUSE_SHARE * self._limit - self._base) / max(len(self._accounts), 1)
        return max(SHARE_BYTES_MIN, min(SHARE_BYTES_MAX, share))

    def forget(self, account: MemoryAccount) -> None:
        self._accounts.discard(account)
        self.held -= account.held

    # --- the process

    def _check_in_time(self) -> None:
        now = trio.current_time()
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self.check()

    def check(self) -> None:
        """Reads the process's memory, and makes room where it is too much."""
        self.check_at = self.held + CHECK_BYTES
        self._read()
        if self.used > REFUSE_SHARE * self._limit:
            self._trim()
        if self.used > self._limit:
            self._make_room()

    def _read(self) -> None:
        self._resident = self._resident_bytes() or 0
        # Freed and still held by the process is at most what it holds beyond what is counted.
        freed = max(0, self._resident - self._base - self.held)
        self._peak = self.held + min(max(0, self._peak - self.held), freed)

    def _trim(self) -> None:
        now = trio.current_time()
        if self._peak - self.held >= TRIM_BYTES and now >= self._next_trim:
            self._next_trim = now + TRIM_SECONDS
            release_free_memory()
            self._read()

    def _make_room(self) -> None:
        """Ends the largest accounts until there is room. What they hold counts as free at once: it soon is."""
        share = self.fair_share
        largest = sorted(self._accounts, key=lambda account: account.held, reverse=True)
        for account in largest:
            if account.held <= share or self.used <= ROOM_SHARE * self._limit:
                return
            account.end()


class MemoryAccount:
    """What one session or request holds: a lower bound in bytes, kept by whoever adds to it.

    budget: None: nothing is limited.
    """

    __slots__ = ("_budget", "_end", "held")

    def __init__(self, budget: MemoryBudget | None = None, end: Callable[[], None] | None = None) -> None:
        self._budget = budget
        self._end = end
        self.held = 0

    def add(self, size: int) -> None:
        """Counts so many bytes more; fewer, where it is negative."""
        budget = self._budget
        if budget is not None:
            self.held += size
            budget.held += size
            if budget.held >= budget.check_at:
                budget.check()

    def refuses(self, size: int) -> bool:
        """Whether to refuse what would take so many bytes more."""
        return self._budget is not None and self._budget.refuses(self, size)

    def fits(self, size: int) -> bool:
        """Whether the server has room for so many bytes more."""
        return self._budget is None or self._budget.fits(size)

    def end(self) -> None:
        """Closes the account, and ends its owner."""
        end, self._end = self._end, None
        if end is not None:
            self.close()
            end()

    def close(self) -> None:
        """From now on nothing is counted. Breaks the reference cycle with the owner, which no collection need find."""
        self._end = None
        if self._budget is not None:
            self._budget.forget(self)
            self._budget = None
