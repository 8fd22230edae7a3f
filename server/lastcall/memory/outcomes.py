"""What was extracted from a session: within the schema's bounds, and kept until it is stored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ..agents.agent import Memory, Transcript
from .facts.redaction import redacted
from .facts.words import content_words

KIND_CHARS_MAX = 32
CONTENT_CHARS_MAX = 1000
MEMORIES_MAX = 50  # per session
OUTCOMES_MAX = 256
OUTCOMES_CHARS_MAX = 4_194_304  # of all together


def acceptable(memories: Sequence[Memory]) -> list[Memory]:
    """An agent's memories, within the bounds of the schema."""
    cleaned = [_cleaned(memory) for memory in memories[:MEMORIES_MAX]]
    return [memory for memory in cleaned if memory.content.strip()]


def _cleaned(memory: Memory) -> Memory:
    """Without what no database takes, and without secrets, whoever extracted it."""
    content = _safe(memory.content)
    quote = content if memory.quote == memory.content else _safe(memory.quote)
    words = memory.words or (content_words(content) if memory.op == "add" else ())
    if (content, quote) != (memory.content, memory.quote):  # they may be those of a secret
        left = {*content_words(content), *content_words(quote)}
        words = tuple(word for word in words if word in left)
    return replace(
        memory,
        kind=memory.kind.replace("\0", "")[:KIND_CHARS_MAX] or "note",
        content=content,
        quote=quote,
        words=words,
    )


def _safe(text: str) -> str:
    return redacted(text.replace("\0", "")[:CONTENT_CHARS_MAX])[:CONTENT_CHARS_MAX]


class UnstoredOutcomes:
    """Memories that are not stored yet: where the store does not answer, only the storing is tried again.

    Beyond the bounds the oldest are dropped; their sessions are extracted anew.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Sequence[Memory]]] = OrderedDict()
        self._chars = 0

    def keep(self, transcript: Transcript, memories: Sequence[Memory]) -> None:
        """Keeps what was extracted from a transcript."""
        self.drop(transcript.session_id)
        self._kept[transcript.session_id] = _fingerprint(transcript), memories
        self._chars += _chars(memories)
        while len(self._kept) > OUTCOMES_MAX or self._chars > OUTCOMES_CHARS_MAX:
            self.drop(next(iter(self._kept)))

    def find(self, transcript: Transcript) -> Sequence[Memory] | None:
        """What was extracted from exactly this transcript: a message may have been deleted since."""
        fingerprint, memories = self._kept.get(transcript.session_id, (None, ()))
        return memories if fingerprint == _fingerprint(transcript) else None

    def drop(self, session_id: str) -> None:
        """Forgets an outcome, if it is kept."""
        _, memories = self._kept.pop(session_id, (0, ()))
        self._chars -= _chars(memories)


def _fingerprint(transcript: Transcript) -> int:
    return hash(tuple(transcript.messages))


def _chars(memories: Sequence[Memory]) -> int:
    return sum(len(memory.content) + len(memory.quote) for memory in memories)
