"""The program of the process that runs the rules: takes transcripts, a line of several, and answers with readings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import msgspec

from ..agents.agent import Transcript
from .reading import read_transcript
from .worker.serving import Answer, serve


def main(cpu_seconds: float) -> NoReturn:
    """Serves until the server is gone. A transcript may take `cpu_seconds` of CPU time."""
    serve(cpu_seconds, _load)


def _load() -> Answer:
    from . import rules  # noqa: F401 - slow to compile; not above, so that the server can import this module
    from .search import indexing  # noqa: F401

    decode = msgspec.json.Decoder(list[Transcript]).decode

    def answer(line: bytes, begin: Callable[[], None]) -> bytes:
        readings = []
        for transcript in decode(line):
            begin()
            readings.append(read_transcript(transcript))
        return msgspec.json.encode(readings)

    return answer
