"""CallerQuotas: what each address, or each key, may begin in a second and have open at once. Knows no sockets."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .limit import Limit, TokenBucket

CALLERS_MAX = 65_536  # remembered by one table; all further ones share one entry
CALLERS_FORGOTTEN_AT_ONCE = 2  # looked at for each new one: more than come in, so that the table shrinks again
RETRY_SECONDS = 1.0  # told to who has too many open: when one of them ends is not known
IPV6_CALLER_BITS = 64  # what one customer of a provider has: single addresses would be free to take


@dataclass(frozen=True, slots=True)
class Refusal:
    """retry_after: in seconds."""

    limit: Limit
    retry_after: float


@dataclass(frozen=True, slots=True)
class Quota:
    """What one caller may have. None: as much as it likes.

    per_second, burst: of what it begins. at_once: of what it has open.
    """

    per_second: float | None = None
    burst: float = 1.0
    at_once: int | None = None


@dataclass(slots=True)
class _Caller:
    bucket: TokenBucket | None
    open: int = 0

    @property
    def idle(self) -> bool:
        """Whether it is as good as new, so that forgetting it gives it nothing."""
        return self.open == 0 and (self.bucket is None or self.bucket.full)


class CallerQuotas:
    """Every caller's share. A caller is any string: an address, or what stands for a key.

    The table is bounded. Whoever is forgotten had nothing open and a full bucket, so that no flood of callers gives
    any of them a new one; where all entries are in use, further callers share one.
    """

    def __init__(self, share: Quota, rate: Limit, at_once: Limit, callers_max: int = CALLERS_MAX) -> None:
        self._quota = share
        self._rate = rate
        self._at_once = at_once
        self._callers_max = callers_max
        self._known: OrderedDict[str, _Caller] = OrderedDict()
        self._others: _Caller | None = None

    def __len__(self) -> int:
        return len(self._known)

    def ask(self, name: str) -> Refusal | None:
        """Takes a token of the caller's; None, or why there was none."""
        return self._ask(self._caller(name))

    @contextmanager
    def entered(self, name: str) -> Iterator[Refusal | None]:
        """One more of what the caller has open, for as long as the block lasts; or why it may not."""
        caller = self._caller(name)
        refused = self._ask(caller) or self._full(caller)
        if refused is not None:
            yield refused
            return
        caller.open += 1
        try:
            yield None
        finally:
            caller.open -= 1

    def _ask(self, caller: _Caller) -> Refusal | None:
        bucket = caller.bucket
        if bucket is None or bucket.take():
            return None
        return Refusal(self._rate, bucket.seconds_until(1.0))

    def _full(self, caller: _Caller) -> Refusal | None:
        most = self._quota.at_once
        return Refusal(self._at_once, RETRY_SECONDS) if most is not None and caller.open >= most else None

    def _caller(self, name: str) -> _Caller:
        caller = self._known.get(name)
        if caller is None:
            self._forget_idle()
            if len(self._known) >= self._callers_max:
                self._others = self._others or self._new()
                return self._others
            caller = self._known[name] = self._new()
        self._known.move_to_end(name)
        return caller

    def _new(self) -> _Caller:
        share = self._quota
        return _Caller(None if share.per_second is None else TokenBucket(share.per_second, share.burst))

    def _forget_idle(self) -> None:
        """Looks at those that called longest ago; who is still in use goes to the end, so that all get looked at."""
        for _ in range(min(CALLERS_FORGOTTEN_AT_ONCE, len(self._known))):
            name, caller = next(iter(self._known.items()))
            if caller.idle:
                del self._known[name]
            else:
                self._known.move_to_end(name)


def caller_of(address: str) -> str:
    """Who an address stands for: itself, or of IPv6 the network that one customer has."""
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


def is_this_machine(caller: str) -> bool:
    """Whether a caller is of this machine: somebody at home, or a proxy that speaks for everybody."""
    if not caller:  # a connection without an address, such as a test's
        return True
    try:
        return ipaddress.ip_address(caller).is_loopback
    except ValueError:
        return False
