"""`/v1/memories`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .access import principal_of, services_of
from .answers import MemoryBody, MemoryList, answer


async def memories(request: Request) -> Response:
    """The user's memories, oldest first."""
    user_id, services = (await principal_of(request)).user_id, services_of(request)
    recalled = await services.store.recall(user_id, services.settings.recall_memories_max)
    return answer(MemoryList(data=[MemoryBody(fact.kind, fact.content) for fact in recalled.facts]))
