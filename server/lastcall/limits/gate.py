"""The gate admits or refuses sockets, HTTP requests and sessions before they cost anything, and counts its refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus

from ..auth.identity import Principal, Scope
from ..auth.proxies import TrustedProxies
from ..config import Settings
from ..protocol.errors import RequestRefused
from .limit import (
    ADDRESS_CONNECTIONS,
    ADDRESS_CONNECTIONS_PER_SECOND,
    ADDRESS_HTTP_CONNECTIONS,
    ADDRESS_REQUESTS_PER_SECOND,
    CALLER_BURST_SECONDS,
    USER_CONNECTIONS,
    USER_CONNECTIONS_PER_SECOND,
    Limit,
)
from .memory import MemoryBudget
from .quota import Caller, CallerQuotas, Quota, Refusal, caller_of, is_this_machine

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
PROBE_CONNECTIONS_MAX = 16  # beyond those of plain HTTP, each for one short request
TRUSTED_PROXY = "trusted proxy"  # the caller whose sockets are other people's, who have limits of their own


class Gate:
    """The limits of one server's callers. A caller is named as by `quota.caller_of`.

    Args:
        settings: The limits; defaults for other machines' addresses are in `limit.py`.
        count: Called once for each refusal.

    Attributes:
        memory: What sessions and requests hold in memory.
        proxies: Those whose clients are told apart.
        count_held_back: Called whenever a connection's frames come too fast.
    """

    def __init__(self, settings: Settings, count: Callable[[Limit], None]) -> None:
        self._connections_max = settings.connections_max
        # Plain HTTP must not use up the sockets of the sessions.
        self._http_connections_max = settings.http_connections_max
        self.memory = MemoryBudget(settings.memory_mib_max, processes=settings.workers)
        self.proxies = TrustedProxies(settings.trusted_proxy)
        self.count = count
        self.count_held_back = partial(count, Limit.FRAME_RATE)
        self._unlimited = _AddressQuotas(Settings(), None, None, None, None)
        self._here = _AddressQuotas(settings, None, None, None, None)
        self._elsewhere = _AddressQuotas(
            settings,
            ADDRESS_CONNECTIONS,
            ADDRESS_CONNECTIONS_PER_SECOND,
            ADDRESS_REQUESTS_PER_SECOND,
            ADDRESS_HTTP_CONNECTIONS,
        )
        self._keys = _credential_quotas(settings, None, None)
        self._users = _credential_quotas(settings, USER_CONNECTIONS, USER_CONNECTIONS_PER_SECOND)
        self._http_connections = 0
        self._probe_connections = 0

    def caller(self, address: str) -> str:
        """The caller that a socket counts for. The clients of a trusted proxy are counted once they are known."""
        return TRUSTED_PROXY if self.proxies.trusts(address) else caller_of(address)

    def enter_socket(self, caller: str) -> Caller | Refusal:
        """Counts one open socket of the caller until it leaves; or returns why it is refused."""
        return self._entered(self._quotas(caller).sockets.enter(caller))

    @property
    def http_full(self) -> bool:
        """Whether plain HTTP has used up its places."""
        return self._http_connections >= self._http_connections_max

    @contextmanager
    def http_connection(self, caller: str) -> Iterator[Refusal | None]:
        """Counts a socket that speaks plain HTTP while the block runs; yields why it is refused, or None."""
        if self.http_full:
            yield self._counted(Refusal(Limit.HTTP_CONNECTIONS, 1.0))
            return
        self._http_connections += 1
        try:
            with self._quotas(caller).http.held(caller) as refused:
                yield self._counted(refused)
        finally:
            self._http_connections -= 1

    @contextmanager
    def probe_connection(self) -> Iterator[Refusal | None]:
        """The same for one request of a probe, where `http_full`: others must not make the server look dead."""
        if self._probe_connections >= PROBE_CONNECTIONS_MAX:
            yield self._counted(Refusal(Limit.HTTP_CONNECTIONS, 1.0))
            return
        self._probe_connections += 1
        try:
            yield None
        finally:
            self._probe_connections -= 1

    def enter_credential(self, principal: Principal) -> Caller | Refusal | None:
        """The same as `enter_socket` for a WebSocket, by its key or, with a token or signed in, by its user.

        Open access and the client secrets made by it have only the limits of addresses: None.
        """
        if principal.key_id is not None:
            return self._entered(self._keys.enter(str(principal.key_id)))
        if principal.vouched or (principal.scope is not Scope.OPEN and principal.credential_id is None):
            return self._entered(self._users.enter(principal.user_id))
        return None

    def request(self, caller: str, path: str) -> Refusal | None:
        """Takes one HTTP request from the caller's rate; returns why it is refused, or None.

        Probes have a rate of their own: behind a load balancer they share an address with everybody else.
        """
        quotas = self._quotas(caller)
        return self._counted((quotas.probes if path in PROBE_PATHS else quotas.requests).take(caller))

    def session(self, open_sessions: int) -> Limit | None:
        """The limit that prevents a further session, or None."""
        full = open_sessions >= self._connections_max
        limit = Limit.CONNECTIONS if full else Limit.MEMORY if self.memory.exceeded() else None
        if limit is not None:
            self.count(limit)
        return limit

    def _quotas(self, caller: str) -> _AddressQuotas:
        if caller == TRUSTED_PROXY:
            return self._unlimited
        return self._here if is_this_machine(caller) else self._elsewhere

    def _entered(self, entered: Caller | Refusal) -> Caller | Refusal:
        if isinstance(entered, Refusal):
            self.count(entered.limit)
        return entered

    def _counted(self, refused: Refusal | None) -> Refusal | None:
        if refused is not None:
            self.count(refused.limit)
        return refused


class _AddressQuotas:
    """Quotas of addresses: the settings, or the given defaults. None: no limit."""

    def __init__(
        self,
        settings: Settings,
        connections: int | None,
        connections_rate: float | None,
        requests_rate: float | None,
        http: int | None,
    ) -> None:
        connections = settings.address_connections_max or connections
        opened = _quota(settings.address_connections_per_second or connections_rate, connections)
        requested = _quota(settings.address_requests_per_second or requests_rate, None)
        self.sockets = CallerQuotas(opened, Limit.ADDRESS_RATE, Limit.ADDRESS_CONNECTIONS)
        self.requests = CallerQuotas(requested, Limit.HTTP_RATE, Limit.HTTP_RATE)
        self.probes = CallerQuotas(requested, Limit.HTTP_RATE, Limit.HTTP_RATE)
        at_once = settings.address_http_connections_max or http
        self.http = CallerQuotas(Quota(at_once=at_once), Limit.HTTP_RATE, Limit.HTTP_CONNECTIONS_SHARE)


def _credential_quotas(settings: Settings, connections: int | None, per_second: float | None) -> CallerQuotas:
    quota = _quota(settings.key_connections_per_second or per_second, settings.key_connections_max or connections)
    return CallerQuotas(quota, Limit.KEY_RATE, Limit.KEY_CONNECTIONS)


def _quota(per_second: float | None, at_once: int | None) -> Quota:
    return Quota(per_second, (per_second or 0.0) * CALLER_BURST_SECONDS, at_once)


# --- replies

_MESSAGES = {
    Limit.HTTP_CONNECTIONS: "The server has too many HTTP connections.",
    Limit.KEY_CONNECTIONS: "Too many connections with this key or for this user.",
    Limit.KEY_RATE: "Too many connections with this key or for this user.",
}


def request_refused(refused: Refusal) -> RequestRefused:
    """The HTTP error for a refusal. Retry-After is at least one second."""
    code = "overloaded" if refused.limit is Limit.HTTP_CONNECTIONS else "rate_limit_exceeded"
    message = _MESSAGES.get(refused.limit, "Too many connections or requests from this address.")
    return RequestRefused(code, message, retry_after=max(1, math.ceil(refused.retry_after)))


def refusal_bytes(refused: Refusal) -> bytes:
    """A whole HTTP/1.1 response, for a peer whose request may be malformed or not even sent."""
    return reply_bytes(request_refused(refused))


def reply_bytes(error: RequestRefused) -> bytes:
    """The same for an error of the request itself."""
    headers = {**error.headers, "content-length": str(len(error.body)), "connection": "close"}
    lines = [f"{name.title()}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *lines, "", ""]
    return "\r\n".join(head).encode() + error.body
