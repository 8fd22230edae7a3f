"""`/v1/memories`: what is known of a user, to see, correct and erase."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..memory.facts.redaction import redacted
from ..memory.facts.words import content_words
from ..memory.fence import harmless
from ..memory.search.explaining import ExplainedTurn, explain
from ..memory.search.recalling import QUESTION_CHARS_MAX, names_of, question_of
from ..protocol.errors import RequestRefused
from ..protocol.ids import public_id
from ..store.people.memories import StoredMemory
from .access import principal_of, services_of
from .answers import (
    DeletedMemory,
    MemoryBody,
    MemoryList,
    MemorySource,
    RecalledTurnBody,
    RecallExplanation,
    answer,
)

LISTED_MAX = 1_000  # of one user, the newest: more than agents are told, since all of them are the user's to correct
EXPLAINED_MAX = 10  # turns, as many as an agent gets at most
CONTENT_CHARS_MAX = 1_000
BODY_BYTES_MAX = 16_384
_ID = "mem_"


class _Edit(msgspec.Struct, forbid_unknown_fields=True):
    content: str


async def memories(request: Request) -> Response:
    """The user's memories, oldest first, each with its source."""
    return await memories_of(request, (await principal_of(request)).user_id)


async def memories_of(request: Request, user_id: str) -> Response:
    """What is remembered of a user, oldest first."""
    found = await services_of(request).store.known_memories(user_id, LISTED_MAX)
    return answer(MemoryList(data=[_body(each) for each in reversed(found)]))


async def explain_recall(request: Request) -> Response:
    """What a message brings back of the user's earlier conversations, and why: `?query=…`."""
    principal, store = await principal_of(request), services_of(request).store
    user_id = principal.user_id
    if principal.conversation_id is not None:
        raise RequestRefused("forbidden", "This client secret is for one conversation only.")
    query = request.query_params.get("query", "")
    if not 1 <= len(query) <= QUESTION_CHARS_MAX or "\0" in query:
        raise RequestRefused(
            "invalid_value", f"query must have 1 to {QUESTION_CHARS_MAX} characters, and no NUL.", "query"
        )
    known = await store.recall(user_id, services_of(request).settings.recall_memories_max)
    question, encode = question_of(query, names_of(known.facts)), services_of(request).encode
    found = await explain(store, user_id, question, EXPLAINED_MAX, encode)
    return answer(RecallExplanation(comes_back=found.comes_back, data=[_explained(each) for each in found.turns]))


def _explained(each: ExplainedTurn) -> RecalledTurnBody:
    return RecalledTurnBody(
        date=each.turn.date,
        who=each.turn.who,
        text=harmless(each.turn.text),
        conversation_id=public_id("conv", UUID(each.turn.conversation_id)),
        item_id=each.turn.item_id,
        score=round(each.score, 2),
        words=list(each.words),
        nearness=None if each.nearness is None else round(each.nearness, 2),
    )


async def edit_memory(request: Request) -> Response:
    """Changes what one memory says: `{"content": "…"}`."""
    user_id, store = (await principal_of(request)).user_id, services_of(request).store
    memory_id, content = memory_id_of(request), _content(await request.body())
    if not await store.edit_memory(user_id, memory_id, content, content_words(content)):
        raise _no_memory()
    found = await store.known_memories(user_id, 1, memory_id=memory_id)
    if not found:
        raise _no_memory()
    return answer(_body(found[0]))


async def forget_memory(request: Request) -> Response:
    """Erases one memory. It is not learned again from the same words."""
    user_id, store = (await principal_of(request)).user_id, services_of(request).store
    memory_id = memory_id_of(request)
    return forgotten(memory_id, is_gone=await store.forget_memory(user_id, memory_id))


def forgotten(memory_id: int, *, is_gone: bool) -> Response:
    """The answer to a deletion. is_gone: by it; else there was no such memory. Raises `RequestRefused`."""
    if not is_gone:
        raise _no_memory()
    return answer(DeletedMemory(id=f"{_ID}{memory_id}"))


def memory_id_of(request: Request) -> int:
    """The memory that the path names. Raises `RequestRefused`."""
    text = request.path_params["memory_id"].removeprefix(_ID)
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise _no_memory()
    return int(text)


def _content(body: bytes) -> str:
    if len(body) > BODY_BYTES_MAX:
        raise RequestRefused("invalid_value", f"The body must have at most {BODY_BYTES_MAX} bytes.")
    try:
        content = " ".join(msgspec.json.decode(body, type=_Edit).content.split())
    except msgspec.MsgspecError as error:
        raise RequestRefused("invalid_value", f"The body is not valid: {error}.") from None
    if not 1 <= len(content) <= CONTENT_CHARS_MAX or "\0" in content:
        sentence = f"content must have 1 to {CONTENT_CHARS_MAX} characters, and no NUL."
        raise RequestRefused("invalid_value", sentence, "content")
    return redacted(content)[:CONTENT_CHARS_MAX]


def _no_memory() -> RequestRefused:
    return RequestRefused("memory_not_found", "There is no such memory.")


def _body(memory: StoredMemory) -> MemoryBody:
    session, conversation = memory.source_session_id, memory.conversation_id
    source = None
    if session is not None and conversation is not None:
        source = MemorySource(
            session_id=public_id("sess", session),
            conversation_id=public_id("conv", conversation),
            item_id=memory.source_item_id,
        )
    return MemoryBody(
        id=f"{_ID}{memory.memory_id}",
        kind=memory.kind,
        content=redacted(memory.content),
        quote=redacted(memory.quote or ""),
        slot=memory.slot,
        said_at=int(memory.said_at),
        edited_at=None if memory.edited_at is None else int(memory.edited_at),
        expires_at=None if memory.expires_at is None else int(memory.expires_at),
        source=source,
    )
