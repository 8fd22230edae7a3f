"""The program of the process that has the encoder: takes texts, a line of several, and answers with their vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import msgspec

from ..worker.serving import Answer, serve


def main(cpu_seconds: float) -> NoReturn:
    """Serves until the server is gone. A line may take `cpu_seconds` of CPU time."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reads it once: the other cores belong to the server
    serve(cpu_seconds, _load)


def _load() -> Answer:
    from .encoder import load_encoder  # not above, so that the server can import this module

    encode = load_encoder()
    decode = msgspec.json.Decoder(list[str]).decode

    def answer(line: bytes, _begin: Callable[[], None]) -> bytes:
        return msgspec.json.encode(encode(decode(line)))

    return answer
