"""Quotas per caller: what each address or key may start per second and have open at once. No I/O."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from .limit import Limit
from .token_bucket import TokenBucket

CALLERS_MAX = 65_536  # in one table; all further callers share one entry
CALLERS_CHECKED = 2  # checked for each new one: two, so that the table shrinks again
RETRY_SECONDS = 1.0  # for callers with too many open: nobody knows when one ends
NAMES_KEPT = 1_024  # of callers and what was found out about their addresses: most connect again and again
IPV6_CALLER_BITS = 64  # the network of one customer, who could use any address in it


@dataclass(frozen=True, slots=True)
class Refusal:
    """retry_after: in seconds."""

    limit: Limit
    retry_after: float


@dataclass(frozen=True, slots=True)
class Quota:
    """The quota of one caller. None: no limit.

    per_second, burst: starts. at_once: open at the same time.
    """

    per_second: float | None = None
    burst: float = 1.0
    at_once: int | None = None


@dataclass(slots=True)
class Caller:
    """One caller, and how many it has open."""

    bucket: TokenBucket | None
    open: int = 0

    def leave(self) -> None:
        """Ends what `enter` began."""
        self.open -= 1

    @property
    def idle(self) -> bool:
        """Whether it is like a new one, so that forgetting it gains the caller nothing."""
        return self.open == 0 and (self.bucket is None or self.bucket.full)


class CallerQuotas:
    """One quota for each caller. A caller is any string, such as an address or a key's id.

    The table is bounded. Only idle callers are forgotten, so a flood of callers gives none of them a new bucket; while
    all entries are in use, further callers share one entry.
    """

    def __init__(self, quota: Quota, rate: Limit, at_once: Limit, callers_max: int = CALLERS_MAX) -> None:
        self._quota = quota
        self._rate = rate
        self._at_once = at_once
        self._callers_max = callers_max
        self._known: OrderedDict[str, Caller] = OrderedDict()
        self._others: Caller | None = None

    def __len__(self) -> int:
        return len(self._known)

    def take(self, name: str) -> Refusal | None:
        """Takes one token of the caller's rate; returns why it is refused, or None."""
        return self._take(self._caller(name))

    def enter(self, name: str) -> Caller | Refusal:
        """Counts one more as open, until `leave`; or returns why it is refused."""
        caller = self._caller(name)
        refused = self._take(caller) or self._full(caller)
        if refused is not None:
            return refused
        caller.open += 1
        return caller

    @contextmanager
    def held(self, name: str) -> Iterator[Refusal | None]:
        """The same while the block runs; yields why it is refused, or None."""
        entered = self.enter(name)
        if isinstance(entered, Refusal):
            yield entered
            return
        try:
            yield None
        finally:
            entered.leave()

    def _take(self, caller: Caller) -> Refusal | None:
        bucket = caller.bucket
        if bucket is None or bucket.take():
            return None
        return Refusal(self._rate, bucket.seconds_until(1.0))

    def _full(self, caller: Caller) -> Refusal | None:
        most = self._quota.at_once
        return Refusal(self._at_once, RETRY_SECONDS) if most is not None and caller.open >= most else None

    def _caller(self, name: str) -> Caller:
        caller = self._known.get(name)
        if caller is None:
            self._forget_idle()
            if len(self._known) >= self._callers_max:
                self._others = self._others or self._new()
                return self._others
            caller = self._known[name] = self._new()
        self._known.move_to_end(name)
        return caller

    def _new(self) -> Caller:
        quota = self._quota
        return Caller(None if quota.per_second is None else TokenBucket(quota.per_second, quota.burst))

    def _forget_idle(self) -> None:
        """Forgets idle callers among the oldest; those in use move to the end, so that all are checked in turn."""
        for _ in range(min(CALLERS_CHECKED, len(self._known))):
            name, caller = next(iter(self._known.items()))
            if caller.idle:
                del self._known[name]
            else:
                self._known.move_to_end(name)


@lru_cache(NAMES_KEPT)
def caller_of(address: str) -> str:
    """The caller of an address: the address, or for IPv6 its /64 network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, IPV6_CALLER_BITS), strict=False))
    return str(parsed)


@lru_cache(NAMES_KEPT)
def is_this_machine(caller: str) -> bool:
    """Whether a caller is on this machine: a local user, or a proxy for all clients."""
    if not caller:  # a connection without an address, as in tests
        return True
    try:
        return ipaddress.ip_address(caller).is_loopback
    except ValueError:
        return False
