"""Log lines: bounded, whatever is in them, and redacted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from lastcall import logs

LINE_CHARS_MAX = 70_000


@pytest.fixture(params=[True, False], ids=["json", "console"])
def json_logs(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = logging.root.handlers[:]
    logs.configure(json_logs=request.param, level="debug")
    yield request.param
    logging.root.handlers[:] = before


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("text", ["A" * 300_000, "a b " * 100_000, "\U0001f4a5 " * 100_000, "\x1b[31m " * 50_000])
def test_a_line_is_bounded_whatever_a_value_holds(
    json_logs: bool, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(json_logs=json_logs, level="debug")  # on the captured streams
    structlog.get_logger("x").warning("happened", value=text)
    logging.getLogger("foreign").warning("happened %s", text)
    try:
        fail(text)
    except ValueError:
        structlog.get_logger("x").exception("failed")
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "characters cut]" in written
    assert "ValueError" in written
    if json_logs:
        assert [json.loads(line)["level"] for line in written.splitlines()] == ["warning", "warning", "error"]
    assert max(len(line) for line in written.splitlines()) < LINE_CHARS_MAX


def test_a_traceback_keeps_where_it_began_and_what_it_says(json_logs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json_logs=json_logs, level="debug")
    try:
        fail("word " * 50_000 + "the end")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "in fail" in written
    assert "the end" in written
