"""The services that the routes use, and the principal of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry
from starlette.requests import Request

from ..auth.identity import Presented, Principal
from ..limits.gate import Gate
from ..protocol.errors import RequestRefused
from ..store.errors import StoreUnavailable
from ..store.records import ClientSecret, ConversationSummary, RememberedFact, StoredItem


class HttpServices(Protocol):
    """The parts of the running server that the routes use."""

    @property
    def metrics(self) -> CollectorRegistry: ...

    @property
    def gate(self) -> Gate: ...

    @property
    def was_open(self) -> bool:
        """Whether no credential was needed when that was last checked."""
        ...

    @property
    def instructions(self) -> str:
        """The instructions of a session that sets none."""
        ...

    async def principal(self, presented: Presented) -> Principal:
        """Raises `RequestRefused`, and `StoreUnavailable`."""
        ...

    async def ready(self) -> str | None:
        """None where the server accepts sessions, else the reason (`draining`, `database unreachable`)."""
        ...

    async def recall(self, user_id: str) -> Sequence[RememberedFact]:
        """The user's memories, oldest first. Raises `StoreUnavailable`."""
        ...

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None
    ) -> Sequence[StoredItem] | None:
        """Raises `ItemNotFound`, and `StoreUnavailable`; see `lastcall.store.store.Store`."""
        ...

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None
    ) -> Sequence[ConversationSummary] | None:
        """Raises `StoreUnavailable`; see `lastcall.store.store.Store`."""
        ...

    async def create_client_secret(self, secret: ClientSecret) -> int:
        """When it expires, in Unix seconds. Raises `StoreError`, see `lastcall.store.store.Store`."""
        ...


def services_of(request: Request) -> HttpServices:
    services: HttpServices = request.app.state.services
    return services


async def principal_of(request: Request) -> Principal:
    """Authenticates the request. Raises `RequestRefused` and `StoreUnavailable`, which the app answers."""
    presented = Presented(request.headers, request.query_params, request.headers.get("host", ""))
    return await services_of(request).principal(presented)


async def operator_of(request: Request) -> Principal | None:
    """Authenticates an operator. Raises `RequestRefused` and `StoreUnavailable`.

    None: open access, while the database is unavailable and no keys existed before, because metrics are needed most
    in an outage.
    """
    try:
        principal = await principal_of(request)
    except StoreUnavailable:
        if services_of(request).was_open:
            return None
        raise
    if not principal.scope.operates:
        raise RequestRefused("forbidden", "This needs a key of scope admin.")
    return principal
