"""What the commands print: tables, JSON, logs, and nothing that controls a terminal or tells a secret."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable

import pytest
import structlog
from lastcall.cli.tables import duration
from lastcall.logs import Level, configure, printable, redact, write_line

from ..support.lastcall_command import Lastcall, kept_logging

SECRET = "hush-hush"
OLD_SESSIONS = """
    INSERT INTO conversation_sessions (user_id, session_start)
    SELECT 'ann-' || i, now() - interval '3 hours' FROM generate_series(1, {count}) AS i
"""


def test_json_output_holds_the_rows_unchanged(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    sql(OLD_SESSIONS.format(count=1))
    sql("INSERT INTO user_memories (user_id, kind, content) VALUES ('ann', 'fact', E'tea \\x1b[31m')")
    (session_id,) = sql("SELECT session_id FROM conversation_sessions")
    (session,) = json.loads(ask("sessions", "--json").out)
    assert (session["session_id"], session["state"], session["session_end"]) == (session_id, "orphaned", None)
    assert session["session_start"].endswith("Z")
    (day,) = json.loads(ask("stats", "--json").out)
    assert (day["total_sessions"], day["still_active"], day["avg_duration"]) == (1, 1, None)
    answer = json.loads(ask("memories", "ann", "--json").out)
    assert answer["memories"][0]["content"] == "tea \x1b[31m"
    assert answer["backlog"] == {"pending": 0, "failed": 0, "attempts_max": 0, "last_error": None}


def test_an_empty_result_is_one_line(ask: Lastcall) -> None:
    assert ask("sessions").out == "No sessions.\n"
    assert ask("stats").out == "No sessions in the last 7 days.\n"
    assert ask("memories", "ann").out.splitlines()[0] == "No memories of ann."
    assert ask("orphans").out.splitlines()[0] == "No orphaned sessions."
    assert json.loads(ask("sessions", "--json").out) == []


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("command", ["sessions", "orphans", "memories", "stats"])
def test_tables_fit_the_terminal_and_keep_ids_whole(
    ask: Lastcall,
    sql: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    command: str,
) -> None:
    sql("INSERT INTO conversation_sessions (user_id) VALUES (repeat('ann', 80))")
    sql(
        "INSERT INTO user_memories (user_id, kind, content, source_session_id)"
        " SELECT user_id, 'fact', repeat('tea and ', 100), session_id FROM conversation_sessions"
    )
    (session_id,) = sql("SELECT session_id FROM conversation_sessions")
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = ask(command).out.splitlines()
    assert max(map(len, lines)) <= columns
    assert command == "stats" or any(session_id in line for line in lines)


def test_in_a_pipe_each_row_is_one_line_without_escapes(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    sql(
        "INSERT INTO user_memories (user_id, kind, content) SELECT 'ann', 'fact', E'\\x1b[2J\\n' || repeat('tea ', 200)"
    )
    header, row, backlog = ask("memories").out.splitlines()
    assert header.split()[:2] == ["id", "user"]
    assert "\ufffd[2J" in row
    assert row.count("tea") == 200
    assert backlog.startswith("Memory of ended sessions")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://u:p@ss@h/db now", "at postgresql://u:***@h/db now"),
        ("postgres://:p@h", "postgres://:***@h"),
        ("postgresql:///db?user=u&password=p%20q&host=/x", "postgresql:///db?user=u&password=***&host=/x"),
        ("postgresql://u@h:5432/db", "postgresql://u@h:5432/db"),
        ("Bearer sk-AbC_12" + "x" * 37 + " wrong", "Bearer sk-AbC_12*** wrong"),
        ("openai-insecure-api-key.ek_" + "y" * 43, "openai-insecure-api-key.ek_***"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_", "Bearer eyJ***"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "eyJ***"),
        ("a task-force of ek_ and sk-short", "a task-force of ek_ and sk-short"),
    ],
)
def test_secrets_are_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_library_logs_carry_tracebacks_only_at_debug(capsys: pytest.CaptureFixture[str], level: Level) -> None:
    with kept_logging():
        configure(json_logs=True, level=level)
        cause = OSError(f"no way to postgresql://u:{SECRET}@h")
        logging.getLogger("asyncpg.pool").error("Failed to restore the pool connection floor", exc_info=cause)
        logging.getLogger("httpx").info("too much")
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"]) == ("Failed to restore the pool connection floor", "error")
    assert ("exception" in event) == (level == "debug")
    assert SECRET not in line


def test_the_console_shows_warnings_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with kept_logging():
        configure(json_logs=False, level="warning")
        structlog.get_logger().info("unseen")
        structlog.get_logger().warning("seen", user="\x1bann")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("[warning] seen user=\ufffdann\n")
    assert err.count("\n") == 1


def test_a_closed_log_pipe_is_ignored() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    write_line(stream, "into the void")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_user_text_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[31m\r\u202eb\n\tç") == "a\ufffd[31m\ufffd\ufffdb\n\tç"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.9, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (444 * 3600, "18 d 12 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown
