"""Whose request it is: every route that is not for everybody asks here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry
from starlette.requests import Request

from ..auth.identity import Presented, Principal, RequestRefused
from ..limits.gate import Gate
from ..store.errors import StoreUnavailable
from ..store.records import ClientSecret, ConversationSummary, RememberedFact, StoredItem


class Services(Protocol):
    """What the routes need of the running server."""

    @property
    def metrics(self) -> CollectorRegistry: ...

    @property
    def gate(self) -> Gate: ...

    @property
    def was_open(self) -> bool:
        """Whether nobody needed a key when that was last looked for."""
        ...

    @property
    def instructions(self) -> str:
        """What the agent is told where a session says nothing else."""
        ...

    async def principal(self, presented: Presented) -> Principal:
        """Raises `RequestRefused`, and `StoreUnavailable`."""
        ...

    async def ready(self) -> str | None:
        """None: send me traffic. Else why not, in a few words (`draining`, `database unreachable`)."""
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


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def principal_of(request: Request) -> Principal:
    """Who makes the request. Raises `RequestRefused`, which the app answers, and `StoreUnavailable`."""
    presented = Presented(request.headers, request.query_params, request.headers.get("host", ""))
    return await services_of(request).principal(presented)


async def operator_of(request: Request) -> Principal | None:
    """Who asks for what only operators may see; None: anybody, while the database is out of reach and no keys are
    known of. Metrics are most wanted in an outage. Raises `RequestRefused`, and `StoreUnavailable`."""
    try:
        principal = await principal_of(request)
    except StoreUnavailable:
        if services_of(request).was_open:
            return None
        raise
    if not principal.scope.operates:
        raise RequestRefused(403, "forbidden", "Only keys of scope admin may see this.")
    return principal
