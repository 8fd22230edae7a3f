"""Reads the body of an answer that was not asked for as a stream. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answer import Answer
from .chunks import DONE, StreamRefused, chunk_in

if TYPE_CHECKING:
    from collections.abc import Iterator


def words_of(body: bytes) -> str:
    """The words of an answer. What goes wrong after its end costs none of them.

    Raises `StreamRefused` where an error stands in its place, and `ValueError` where it cannot be read to its end.
    """
    answer, words = Answer(), []
    try:
        for chunk in _chunks_in(body):
            words += [piece for piece in answer.take(chunk) if isinstance(piece, str)]
            if chunk is DONE:
                answer.done()
    except (ValueError, StreamRefused):
        if answer.finish is None:
            raise
    if answer.finish is None:
        raise ValueError("the answer breaks off")
    return "".join(words)


def _chunks_in(body: bytes) -> Iterator[Any]:
    """The chunks of a completion, or of the stream that came in its place; and `DONE`."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if body.startswith(b"{"):  # whatever type the endpoint names
        yield chunk_in(body)
        yield DONE
        return
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if data == b"[DONE]":
            yield DONE
            return
        if data.startswith(b"{"):
            yield chunk_in(data)
