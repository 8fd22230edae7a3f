"""A line of a CSV file that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

# What a spreadsheet would run, or show as something else: cells that hold what others wrote may begin like that.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_line(cells: Sequence[str]) -> str:
    """The cells as a line with its end; whatever looks like a formula is made a text."""
    line = io.StringIO()
    csv.writer(line).writerow([f"'{each}" if each.startswith(_FORMULAS) else each for each in cells])
    return line.getvalue()
