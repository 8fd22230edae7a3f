"""The records of what turns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec


class TurnMeaning(msgspec.Struct, frozen=True):
    """What a turn means. vector: as pgvector reads it: see `memory.meaning.encoder.Encoder`."""

    item_id: str
    vector: str


@dataclass(slots=True)
class MeantPassage:
    """A passage, and how near the meanings of its turns are to the question's.

    flags: per turn. nearness: cosines, by the number of the turn; a turn without a meaning has none.
    """

    flags: Sequence[int]
    nearness: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class MeaningResult:
    """Passages by their ids. turns: that were compared. mean, deviation, nearest: of their cosines."""

    passages: Mapping[int, MeantPassage]
    turns: int
    mean: float
    deviation: float
    nearest: float


@dataclass(frozen=True, slots=True)
class UnencodedPassage:
    """A passage that was indexed without meanings. texts: the beginnings of its turns, by their numbers."""

    user_id: str
    passage_id: int
    texts: Mapping[int, str]
