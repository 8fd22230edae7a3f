"""The services that the routes use, and the principal of a request."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from ..auth.authenticator import Authenticator
from ..auth.identity import Presented, Principal
from ..config import Settings
from ..limits.gate import Gate
from ..metrics import Metrics
from ..protocol.errors import RequestRefused
from ..store.errors import StoreUnavailable
from ..store.store import Store


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
    def authenticator(self) -> Authenticator: ...

    async def ready(self) -> str | None:
        """None where the server accepts sessions, else the reason (`draining`, `no commit: …`)."""
        ...


def services_of(request: Request) -> HttpServices:
    services: HttpServices = request.app.state.services
    return services


async def principal_of(request: Request) -> Principal:
    """Authenticates the request. Raises `RequestRefused` and `StoreUnavailable`, which the app answers."""
    presented = Presented(request.headers, request.query_params, request.headers.get("host", ""))
    return await services_of(request).authenticator.principal(presented)


async def operator_of(request: Request) -> Principal | None:
    """Authenticates an operator. Raises `RequestRefused` and `StoreUnavailable`.

    None: open access, while the database is unavailable and no keys existed before, because metrics are needed most
    in an outage.
    """
    try:
        principal = await principal_of(request)
    except StoreUnavailable:
        if services_of(request).authenticator.was_open:
            return None
        raise
    if not principal.scope.operates:
        raise RequestRefused("forbidden", "This needs a key of scope admin.")
    return principal
