"""The services that the routes use, and the principal of a request."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.types import Scope

from ..auth.authenticator import Authenticator
from ..auth.identity import Presented, Principal
from ..auth.proxies import RequestClient, TrustedProxies, sign_of_proxy
from ..config import Settings
from ..limits.gate import Gate
from ..memory.meaning.encoder import Encode
from ..metrics import Metrics
from ..protocol.errors import RequestRefused
from ..store.errors import StoreUnavailable
from ..store.operators.acts import Actor
from ..store.store import Store

KEY_ID = "lastcall.key_id"  # in the scope of a request that was authenticated by a key, for the access log
LOCAL_ACTOR = "this machine"  # whoever acts where no keys exist


class HttpServices(Protocol):
    """The parts of the running server that the routes use; `realtime.services.Services` has them."""

    @property
    def settings(self) -> Settings: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def gate(self) -> Gate: ...

    @property
    def store(self) -> Store: ...

    @property
    def encode(self) -> Encode | None: ...

    @property
    def authenticator(self) -> Authenticator: ...

    async def ready(self) -> str | None:
        """None where the server accepts sessions, else the reason (`draining`, `no commit: …`)."""
        ...


def services_of(request: Request) -> HttpServices:
    services: HttpServices = request.app.state.services
    return services


async def principal_of(request: Request) -> Principal:
    """Authenticates the request. Raises `RequestRefused` and `StoreUnavailable`, which the app answers."""
    return _noted(request, await services_of(request).authenticator.principal(presented_by(request)))


async def overseer_of(request: Request) -> Principal:
    """Authenticates somebody who may read what is for operators. Raises as `principal_of` does."""
    principal = _noted(request, await services_of(request).authenticator.overseer(presented_by(request)))
    if not principal.scope.oversees:
        raise RequestRefused("forbidden", "This needs a key of scope admin or reader.")
    return principal


async def actor_of(request: Request) -> Actor:
    """Authenticates an operator, who may act. Raises as `principal_of` does."""
    principal = await overseer_of(request)
    if not principal.scope.operates:
        raise RequestRefused("forbidden", "This needs a key of scope admin.")
    return Actor(principal.subject or LOCAL_ACTOR, "api", principal.key_id)


def _noted(request: Request, principal: Principal) -> Principal:
    key_id = principal.key_id or principal.credential_id
    if key_id is not None:
        request.scope[KEY_ID] = str(key_id)
    return principal


def presented_by(request: Request) -> Presented:
    """Raises `RequestRefused` where proxies contradict each other."""
    client = client_of(request.scope, services_of(request).gate.proxies)
    return Presented(
        request.headers,
        request.query_params,
        client.host or request.headers.get("host", ""),
        address=client.address,
        scheme=client.scheme,
        sign_of_proxy=sign_of_proxy_in(request.scope),
        only_reads=request.method in ("GET", "HEAD"),
    )


def client_of(scope: Scope, proxies: TrustedProxies) -> RequestClient:
    """The client of an HTTP request. Raises `RequestRefused`."""
    return proxies.client((scope.get("client") or ("",))[0], scope["headers"])


def sign_of_proxy_in(scope: Scope) -> str | None:
    """What shows that an HTTP request came through a proxy; None: nothing does."""
    # Some proxies add no header by default, but speak HTTP/1.0, which no client of ours does.
    return sign_of_proxy(name for name, _ in scope["headers"]) or (
        "HTTP/1.0" if scope["http_version"] == "1.0" else None
    )


async def overseer_even_in_an_outage(request: Request) -> Principal | None:
    """As `overseer_of`. Raises `RequestRefused` and `StoreUnavailable`.

    None: open access, while the database is unavailable and no keys existed before, because metrics are needed most
    in an outage.
    """
    try:
        return await overseer_of(request)
    except StoreUnavailable:
        if services_of(request).authenticator.was_open:
            return None
        raise
