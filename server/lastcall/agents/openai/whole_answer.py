"""Reads the body of an answer that was not asked for as a stream. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answer import Answer
from .chunks import DONE, StreamRefused, beginning_of, chunks_in, chunks_of_line

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
                break
    except (ValueError, StreamRefused):
        if answer.finish is None:
            raise
    if answer.finish is None:
        raise ValueError("the answer breaks off")
    return "".join(words).encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves become whole


def _chunks_in(body: bytes) -> Iterator[Any]:
    """The chunks of a completion, or of the stream that came in its place; and `DONE`."""
    body = beginning_of(body)
    if body.startswith((b"{", b"[")):  # whatever type the endpoint names
        yield from chunks_in(body)
        yield DONE
        return
    for line in body.decode(errors="replace").splitlines():
        if line.startswith("data:"):
            yield from chunks_of_line(line.removeprefix("data:").strip())
