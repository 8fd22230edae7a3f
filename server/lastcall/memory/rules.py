"""Extracts memories without a model: the user's own sentences about themselves, word for word. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from ..agents.agent import Memory, Message, Transcript
from .facts import requests
from .facts.clauses import StatedFact, facts_of
from .facts.grounding import STRAIGHT_APOSTROPHES
from .facts.redaction import has_secret
from .facts.whose import OwnWords
from .facts.words import content_words, ended_words

MEMORIES_MAX = 20  # of one session; the newest are kept
INPUT_CHARS_MAX = 100_000  # of the user's messages of one session; half of them the newest, half the oldest
MESSAGE_CHARS_MAX = 8_000  # of one message; a longer one is a paste, with what the user says around it
MESSAGE_END_CHARS = 2_000  # of these, from the end of the message
_SPACES = re.compile(r" {2,}")


def memories_by_rules(transcript: Transcript) -> list[Memory]:
    """The user's sentences about themselves, oldest first; each memory's content is its quote.

    Among them are endings ("I no longer …") and what is to be forgotten, each with the words that it refers to.
    """
    reading = _Reading()
    for message in _chosen(transcript.messages):
        for text, whole in _parts(message.text):
            reading.read(message.item_id, text, whole=whole)
    return reading.memories()


class _Reading:
    """What was found so far in one session."""

    def __init__(self) -> None:
        self._found: dict[str, Memory] = {}
        self._listener = OwnWords()
        self._latest: list[str] = []  # keys of what the last sentence with facts left behind
        self._seen: set[str] = set()

    def memories(self) -> list[Memory]:
        return list(self._found.values())

    def read(self, item_id: str, text: str, *, whole: bool) -> None:
        skip = False
        for sentence, as_written in self._listener.own(text, whole=whole):
            shown = _SPACES.sub(" ", as_written)  # patterns would read a long run once per space
            if skip:
                continue
            what = requests.to_forget(shown)
            declines = what is None and requests.declined(shown)
            facts = [] if what is not None or declines else self._new_facts(sentence, as_written)
            # Most sentences say nothing to keep; only of the others it matters whether they are orders.
            if (what is None and not declines and not facts) or requests.is_order(shown):
                continue
            if what is not None:
                self._forget(item_id, sentence, what)
            elif declines:
                skip = self._decline(shown)
            else:
                self._keep(item_id, facts)

    def _new_facts(self, sentence: str, as_written: str) -> Sequence[StatedFact]:
        """The facts of a sentence; none where it was said before without leaving any: a long text repeats itself."""
        if sentence in self._seen and sentence not in self._found:
            return []
        self._seen.add(sentence)
        return facts_of(sentence, as_written)

    def _keep(self, item_id: str, facts: Sequence[StatedFact]) -> None:
        self._latest = []
        for fact in facts:
            if fact.slot == "note" and has_secret(fact.quote):
                continue  # "remember my password": without the secret, nothing is left to know
            op: Literal["add", "close"] = "close" if fact.closes else "add"
            words = content_words(fact.quote)
            words = ended_words(words) if fact.ended else words
            self._add(Memory(fact.kind, fact.quote, item_id, fact.quote, fact.slot, words, op, tuple(fact.closes)))

    def _forget(self, item_id: str, sentence: str, what: str) -> None:
        """Whatever is to be forgotten leaves this session at once, and the store is told."""
        if not what:
            self._take_back(item_id, sentence)
            return
        self._latest = []
        forget = Memory("note", sentence, item_id, what, op="forget")
        if requests.everything(what):
            self._found.clear()
            self._add(replace(forget, slot="*"))
            return
        named = requests.topic(what)
        slots = (named,) if named else tuple({fact.slot for fact in facts_of(what, what)})
        words = () if named else requests.forgotten_words(what)
        if words or named:
            self._add(replace(forget, words=words, closes=slots))

    def _take_back(self, item_id: str, sentence: str) -> None:
        latest, self._latest = self._latest, []
        for key in latest:
            memory = self._found.pop(key, None)
            if memory is not None:
                forget = Memory("note", sentence, item_id, memory.quote, slot=memory.slot, op="forget")
                self._add(replace(forget, words=memory.words, closes=(memory.slot,)))
        self._latest = []

    def _decline(self, shown: str) -> bool:
        """What stands in the sentence is not kept; where it only points elsewhere, what it points at is not.

        Returns whether the rest of the message is meant.
        """
        if facts_of(shown, shown) or len(content_words(shown)) > 2:
            return shown.rstrip().endswith(":")
        latest, self._latest = self._latest, []
        for key in latest:
            self._found.pop(key, None)
        return not latest

    def _add(self, memory: Memory) -> None:
        key = memory.op + _plain(memory.quote)
        self._found.pop(key, None)  # repeated: the newer item counts
        self._found[key] = memory
        self._latest.append(key)
        if len(self._found) > MEMORIES_MAX:
            del self._found[next(iter(self._found))]


def _plain(text: str) -> str:
    return " ".join(text.casefold().translate(STRAIGHT_APOSTROPHES).split()).rstrip(".!")


def _chosen(messages: Sequence[Message]) -> list[Message]:
    """The user's newest messages that fit into half of what is read, and the oldest that fit into the rest, in order.

    So neither a long paste nor a long day loses what somebody said of themselves at the start.
    """
    spoken = [message for message in messages if message.role == "user"]
    taken: set[int] = set()
    left = INPUT_CHARS_MAX // 2
    for order in (range(len(spoken) - 1, -1, -1), range(len(spoken))):
        for number in order:
            size = min(len(spoken[number].text), MESSAGE_CHARS_MAX)
            if number in taken:
                break
            if size > left:
                break
            taken.add(number)
            left -= size
        left += INPUT_CHARS_MAX - INPUT_CHARS_MAX // 2
    return [spoken[number] for number in sorted(taken)]


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The message, or its start and its end, each with whether it starts where a sentence does."""
    if len(text) <= MESSAGE_CHARS_MAX:
        yield text, True
        return
    yield text[: MESSAGE_CHARS_MAX - MESSAGE_END_CHARS], True
    yield text[-MESSAGE_END_CHARS:], False
