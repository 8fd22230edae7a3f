"""What is measured on: pasts, and questions about them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

DATE = "%I:%M %p on %d %B, %Y"
APART = re.compile(r"[;,\s]+")  # some pieces of evidence name several turns


class BadData(Exception):
    """The file has another form; the message is one line."""


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """item_id: as evidence names it."""

    who: Literal["user", "assistant"]
    text: str
    item_id: str


@dataclass(frozen=True, slots=True)
class PastSession:
    at: datetime
    turns: Sequence[SaidTurn]


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """evidence: the turns that hold the answer."""

    text: str
    evidence: Collection[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One user's past. user_names, agent_names: in lower case, where they have any. language: of a generated one."""

    user_id: str
    sessions: Sequence[PastSession]
    questions: Sequence[AskedQuestion]
    user_names: Collection[str] = field(default=())
    agent_names: Collection[str] = field(default=())
    language: str = "en"


def read_samples(path: Path) -> list[Sample]:
    """The samples of a JSON file in the form of LoCoMo, which may be gzipped. Raises `BadData`."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return [_sample(each, number) for number, each in enumerate(json.loads(data))]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"cannot read {path}: {error!r}") from error


def _sample(sample: dict[str, Any], number: int) -> Sample:
    """The first speaker is the user, the other one the agent."""
    said = sample["conversation"]
    user, agent = said["speaker_a"], said["speaker_b"]
    count = max(int(key.split("_")[1]) for key in said if re.fullmatch(r"session_\d+", key))
    sessions = [
        PastSession(
            datetime.strptime(said[f"session_{n}_date_time"], DATE).replace(tzinfo=UTC),
            [
                SaidTurn("user" if turn["speaker"] == user else "assistant", turn["text"], turn["dia_id"])
                for turn in said[f"session_{n}"]
                if turn["text"].strip()
            ],
        )
        for n in range(1, count + 1)
        if said.get(f"session_{n}")
    ]
    questions = [AskedQuestion(each["question"], _evidence(each)) for each in sample["qa"]]
    return Sample(
        str(sample.get("sample_id") or f"sample-{number}"), sessions, questions, {user.lower()}, {agent.lower()}
    )


def _evidence(question: dict[str, Any]) -> list[str]:
    return [name for each in question.get("evidence") or () for name in APART.split(each) if name]
