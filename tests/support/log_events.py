"""The events that the code logs, read from its source: names, levels and fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "server" / "lastcall"
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
# Functions of ours that log the event which they are given: at which level, and with which fields besides.
TELLERS: Mapping[tuple[str, str], tuple[str, set[str]]] = {
    ("sessions/upkeep/reaper.py", "self._tell"): ("warning", {"instance_id"}),
    ("cli/serve.py", "logs.json_line"): ("info", {"workers"}),
    ("logs/__init__.py", "json_line"): ("warning", set()),
}
# Calls whose event stands in a variable.
PASSED_ON = {("sessions/upkeep/reaper.py", "_log.warning")}
# A logger in a variable, and its levels.
CHOSEN = {("runtime/check.py", "log"): {"warning", "error"}}
NO_FIELDS = {None, "exc_info", "level"}


@dataclass
class LoggedEvent:
    """levels: at which it is logged. fields: that its own calls give it."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


@cache
def logged_events() -> Mapping[str, LoggedEvent]:
    """By name."""
    found: dict[str, LoggedEvent] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                _add_to(found, node, place)
    return found


def _add_to(found: dict[str, LoggedEvent], call: ast.Call, place: str) -> None:
    """Adds the events that a call may log."""
    levels, more = _levels(call, place)
    names = list(_names(call.args[0])) if levels and call.args else []
    if levels and not names and (place, ast.unparse(call.func)) not in PASSED_ON:
        raise AssertionError(f"{place}: what does {ast.unparse(call)!r:.60} log?")
    for name in names:
        event = found.setdefault(name, LoggedEvent())
        event.levels |= levels
        event.fields |= more | {str(each.arg) for each in call.keywords if each.arg not in NO_FIELDS}


def _levels(call: ast.Call, place: str) -> tuple[set[str], set[str]]:
    """The levels at which a call logs, none where it logs nothing; and the fields that are added on its way."""
    function = ast.unparse(call.func)
    if (place, function) in CHOSEN:
        return CHOSEN[place, function], set()
    if (place, function) in TELLERS:
        level, more = TELLERS[place, function]
        return {level}, more
    logger, _, method = function.rpartition(".")
    is_ours = logger in ("_log", "log") or logger.startswith("structlog.get_logger(")
    return {LEVELS[method]} if is_ours and method in LEVELS else set(), set()


def _names(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(name)):
            yield name
        case ast.IfExp():
            yield from _names(node.body)
            yield from _names(node.orelse)
