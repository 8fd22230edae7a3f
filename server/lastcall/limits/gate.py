"""The gate: who gets a socket, an HTTP answer or a session, judged before it costs anything. Counts what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import msgspec
import trio

from ..auth.identity import Principal, Scope
from ..config import Settings
from ..runtime.host import memory_bytes, resident_bytes
from .limit import Limit
from .quota import CallerQuotas, Quota, Refusal, is_this_machine

BURST_SECONDS = 10.0  # what a rate of callers allows at once: so many seconds' worth

# Where the settings say nothing, for addresses of other machines. This machine's own have no limits of their own then:
# whoever is on it can do worse, and behind a proxy on it everybody would share one address.
ADDRESS_CONNECTIONS = 256
ADDRESS_CONNECTIONS_PER_SECOND = 20.0
ADDRESS_REQUESTS_PER_SECOND = 50.0
ADDRESS_HTTP_CONNECTIONS = 32  # a browser opens six

# The same for users of tokens. A key may be a backend's, which speaks for everybody: it has a limit where one is set.
USER_CONNECTIONS = 256
USER_CONNECTIONS_PER_SECOND = 20.0

MEMORY_SHARE = 0.8  # of what the machine or its control group has
MEMORY_LOOK_SECONDS = 1.0  # between looks at what the process holds
MIB = 1_048_576

_TOO_MANY = (429, "Too Many Requests", "rate_limit_exceeded", "Too many connections or requests from this address.")
_TOO_MANY_OF_A_HOLDER = (*_TOO_MANY[:3], "Too many connections with this key, or of this user.")
_STATUS = {
    Limit.HTTP_CONNECTIONS: (503, "Service Unavailable", "overloaded", "The server has too many connections."),
    Limit.KEY_CONNECTIONS: _TOO_MANY_OF_A_HOLDER,
    Limit.KEY_RATE: _TOO_MANY_OF_A_HOLDER,
}


class Gate:
    """One server's limits for its callers. caller: as `callers.caller_of` names it. count: told of each refusal."""

    def __init__(self, settings: Settings, count: Callable[[Limit], None]) -> None:
        self._connections_max = settings.connections_max
        # Pages and questions must not take the sessions' sockets.
        self._http_connections_max = settings.http_connections_max
        self._memory = _MemoryGauge(settings.memory_mib_max)
        self.count = count
        self._here = _Tables(settings, None, None, None, None)
        self._elsewhere = _Tables(
            settings,
            ADDRESS_CONNECTIONS,
            ADDRESS_CONNECTIONS_PER_SECOND,
            ADDRESS_REQUESTS_PER_SECOND,
            ADDRESS_HTTP_CONNECTIONS,
        )
        self._keys = _holders(settings, None, None)
        self._users = _holders(settings, USER_CONNECTIONS, USER_CONNECTIONS_PER_SECOND)
        self._http_connections = 0

    @contextmanager
    def socket(self, caller: str) -> Iterator[Refusal | None]:
        """A socket of the caller's, for as long as the block lasts; or why it may not have it."""
        with self._tables(caller).sockets.entered(caller) as refused:
            yield self._counted(refused)

    @contextmanager
    def http_connection(self, caller: str) -> Iterator[Refusal | None]:
        """The same for a socket that turned out to speak HTTP."""
        if self._http_connections >= self._http_connections_max:
            yield self._counted(Refusal(Limit.HTTP_CONNECTIONS, 1.0))
            return
        self._http_connections += 1
        try:
            with self._tables(caller).http.entered(caller) as refused:
                yield self._counted(refused)
        finally:
            self._http_connections -= 1

    @contextmanager
    def credential(self, principal: Principal) -> Iterator[Refusal | None]:
        """One more WebSocket of the same key or, where that is a token, of the same user.

        Open access, and client secrets that were made by it, have their addresses' limits alone.
        """
        entered: AbstractContextManager[Refusal | None] = nullcontext()
        if principal.key_id is not None:
            entered = self._keys.entered(str(principal.key_id))
        elif principal.scope is not Scope.OPEN and principal.credential_id is None:
            entered = self._users.entered(principal.user_id)
        with entered as refused:
            yield self._counted(refused)

    def request(self, caller: str) -> Refusal | None:
        """One HTTP request."""
        return self._counted(self._tables(caller).requests.ask(caller))

    def session(self, open_sessions: int) -> Limit | None:
        """Why no further session can be begun, or None."""
        full = open_sessions >= self._connections_max
        limit = Limit.CONNECTIONS if full else Limit.MEMORY if self._memory.short() else None
        if limit is not None:
            self.count(limit)
        return limit

    def _tables(self, caller: str) -> _Tables:
        return self._here if is_this_machine(caller) else self._elsewhere

    def _counted(self, refused: Refusal | None) -> Refusal | None:
        if refused is not None:
            self.count(refused.limit)
        return refused


class _Tables:
    """The callers' shares: as the settings say, else as given. None: no limit."""

    def __init__(
        self,
        settings: Settings,
        connections: int | None,
        connections_rate: float | None,
        requests_rate: float | None,
        http: int | None,
    ) -> None:
        connections = settings.address_connections_max or connections
        begun = _quota(settings.address_connections_per_second or connections_rate, connections)
        asked = _quota(settings.address_requests_per_second or requests_rate, None)
        self.sockets = CallerQuotas(begun, Limit.ADDRESS_RATE, Limit.ADDRESS_CONNECTIONS)
        self.requests = CallerQuotas(asked, Limit.HTTP_RATE, Limit.HTTP_RATE)
        at_once = settings.address_http_connections_max or http
        self.http = CallerQuotas(Quota(at_once=at_once), Limit.HTTP_RATE, Limit.HTTP_CONNECTIONS_SHARE)


def _holders(settings: Settings, connections: int | None, per_second: float | None) -> CallerQuotas:
    share = _quota(settings.key_connections_per_second or per_second, settings.key_connections_max or connections)
    return CallerQuotas(share, Limit.KEY_RATE, Limit.KEY_CONNECTIONS)


def _quota(per_second: float | None, at_once: int | None) -> Quota:
    return Quota(per_second, (per_second or 0.0) * BURST_SECONDS, at_once)


class _MemoryGauge:
    """Whether the process holds too much, asked of the kernel no more than once a second."""

    def __init__(self, mib_max: int | None) -> None:
        have = memory_bytes()
        self._bytes_max = mib_max * MIB if mib_max else have * MEMORY_SHARE if have else math.inf
        self._short = False
        self._next_look = -math.inf

    def short(self) -> bool:
        now = trio.current_time()
        if now >= self._next_look:
            self._next_look = now + MEMORY_LOOK_SECONDS
            self._short = (resident_bytes() or 0) > self._bytes_max
        return self._short


def refusal_of(refused: Refusal) -> tuple[int, str, str]:
    """HTTP status, error code and message."""
    status, _, code, message = _STATUS.get(refused.limit, _TOO_MANY)
    return status, code, message


def retry_after(refused: Refusal) -> str:
    """The header's value: whole seconds, and never none."""
    return str(max(1, math.ceil(refused.retry_after)))


def refusal_bytes(refused: Refusal) -> bytes:
    """A whole HTTP answer, written out: it goes to who may have sent anything, or nothing."""
    status, reason, code, message = _STATUS.get(refused.limit, _TOO_MANY)
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    body = msgspec.json.encode({"error": error})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Retry-After: {retry_after(refused)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
