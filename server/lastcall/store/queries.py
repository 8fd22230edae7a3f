"""Reads `queries.sql` and those of `operators/` and `webhooks/`, by name; and `schema.sql`, `meanings.sql`."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(text: str) -> dict[str, str]:
    """Splits SQL text at its `-- name:` lines into statements by name, without their closing semicolons."""
    parts = _NAME.split(text)[1:]
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("a statement name occurs twice")
    return {name: body.strip().removesuffix(";") for name, body in zip(names, bodies, strict=True)}


_FILES = ("queries.sql", "operators/operators.sql", "webhooks/webhooks.sql")
QUERIES = load_queries("\n".join((files(__package__) / name).read_text() for name in _FILES))
SCHEMA = (files(__package__) / "schema.sql").read_text()
SCHEMA_DIGEST = hashlib.sha256(SCHEMA.encode()).hexdigest()
MEANINGS = (files(__package__) / "meanings.sql").read_text()
MEANINGS_DIGEST = hashlib.sha256(MEANINGS.encode()).hexdigest()
