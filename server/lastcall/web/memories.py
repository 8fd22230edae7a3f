"""`/v1/memories`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .access import principal_of, services_of
from .answers import MemoryBody, MemoryList, answer


async def memories(request: Request) -> Response:
    """The user's memories, oldest first."""
    facts = await services_of(request).recall((await principal_of(request)).user_id)
    return answer(MemoryList(data=[MemoryBody(fact.kind, fact.content) for fact in facts]))
