"""Rows to import, wherever they come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

PAGE_ROWS = 500

Row = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of the source. has_zone: whether its times have one; None: only the values tell, or it holds none."""

    name: str
    type: str
    has_zone: bool | None = None


class Source(Protocol):
    """Rows to import.

    Attributes:
        name: What it is called, which is part of the identity of what is imported from it.
        columns: What each row has.
        evidence: Those of `columns` that are known to hold when a session was last seen.
        rows_total: How many rows there are, about; None: not known.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> Sequence[SourceColumn]: ...

    @property
    def evidence(self) -> Sequence[str]: ...

    @property
    def rows_total(self) -> int | None: ...

    def pages(self, names: Sequence[str]) -> AsyncIterator[Sequence[Row]]:
        """The values of these columns, up to `PAGE_ROWS` rows at a time. The first one holds the session's id."""
        ...
