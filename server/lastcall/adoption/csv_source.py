"""Rows from a file of comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import trio

from ..store.imports.source import PAGE_ROWS, Row, SourceColumn
from .columns import BadImport

FIELD_CHARS_MAX = 1_048_576
_DELIMITERS = (",", ";", "\t", "|")
_NULLS = ("", "\\N", "NULL")


class CsvSource:
    """Implements `Source`: a file whose first line names the columns. Empty values, NULL and \\N are missing ones."""

    evidence: Sequence[str] = ()
    rows_total = None

    def __init__(self, path: Path) -> None:
        """Raises `BadImport` where it cannot be read, or has no such line."""
        self._path = path
        self.name = path.stem
        with self._open() as lines:
            header = next(lines, [])
        if not header:
            raise BadImport(f"{path} is empty: its first line must name the columns")
        if len(set(header)) < len(header):
            raise BadImport(f"{path} names a column twice")
        self._header = header
        self.columns = [SourceColumn(name, "text") for name in header]

    @contextmanager
    def _open(self) -> Iterator[Iterator[list[str]]]:
        csv.field_size_limit(FIELD_CHARS_MAX)
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                delimiter = max(_DELIMITERS, key=first.count)
                file.seek(0)
                yield csv.reader(file, delimiter=delimiter)
        except (OSError, UnicodeError, csv.Error) as error:
            raise BadImport(f"cannot read {self._path}: {error}") from error

    async def pages(self, names: Sequence[str]) -> AsyncIterator[Sequence[Row]]:
        """Raises `BadImport` for a line with too few or too many values: the columns behind it would be shifted."""
        at = [self._header.index(name) for name in names]
        with self._open() as lines:
            next(lines, None)
            number = 1
            while page := await trio.to_thread.run_sync(lambda: list(islice(lines, PAGE_ROWS))):
                rows: list[Row] = []
                for line in page:
                    number += 1
                    if not line:
                        continue
                    if len(line) != len(self._header):
                        raise BadImport(f"row {number} of {self._path} has {len(line)} values, not {len(self._header)}")
                    rows.append([None if line[each] in _NULLS else line[each] for each in at])
                yield rows
