"""What the commands print: tables, JSON, logs, and nothing that controls a terminal or tells a secret."""

from __future__ import annotations

import csv
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


ANSWERS = """
    INSERT INTO conversation_sessions (session_id, user_id) VALUES ('11111111-1111-1111-1111-111111111111', '=cmd()');
    INSERT INTO agent_responses (user_id, session_id, response_id, started_at, first_at, ended_at, outcome, reason,
                                 agent, model, input_tokens, output_tokens, cached_tokens)
    SELECT '=cmd()', '11111111-1111-1111-1111-111111111111', gen_random_uuid(), at, at + interval '1 s',
           at + interval '4 s', outcome, reason, 'openai gray at host', 'gray', tokens, tokens, NULL
      FROM (VALUES (timestamptz '2026-03-10 23:59:50Z', 'completed', NULL, 30),
                   ('2026-03-10 23:59:58Z', 'failed', 'agent_error', NULL)) t (at, outcome, reason, tokens)
"""


def test_what_answers_took_is_printed_as_csv_that_runs_nothing(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    for statement in ANSWERS.split(";"):
        sql(statement)
    out = ask("stats", "--since", "2026-03-10", "--until", "2026-03-11", "--by", "day", "--by", "user", "--csv").out
    newest, oldest = csv.DictReader(out.splitlines())
    assert (oldest["date"], oldest["user_id"], oldest["answers"]) == ("2026-03-10", "'=cmd()", "1")
    assert (oldest["input_tokens"], oldest["cached_tokens"], oldest["first_seconds"]) == ("30", "", "1.0")
    assert (newest["date"], newest["failed"], newest["input_tokens"]) == ("2026-03-11", "1", ""), "by their end, in UTC"
    (row,) = json.loads(ask("stats", "--since", "2026-03-10", "--until", "2026-03-11", "--by", "key", "--json").out)
    assert (row["key_id"], row["answers"], row["counted"], row["output_tokens"]) == (None, 2, 1, 30)
    (day,) = csv.DictReader(ask("stats", "--since", "2026-03-10", "--until", "2026-03-10", "--csv").out.splitlines())
    assert (day["total_sessions"], day["answers"], day["output_tokens"]) == ("0", "1", "30")
    assert ask("stats", "--since", "2026-03-01", "--until", "2026-03-02", "--by", "user").out == (
        "No answers from 2026-03-01 to 2026-03-02.\n"
    )
    table = ask("stats", "--since", "2026-03-10", "--until", "2026-03-11", "--by", "user").out
    assert table.splitlines()[1].split()[:2] == ["=cmd()", "1"]


def test_a_sessions_answers_are_shown_with_what_they_took(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    for statement in ANSWERS.split(";"):
        sql(statement)
    shown = ask("sessions", "show", "11111111-1111-1111-1111-111111111111").out
    assert "4.0 s (first piece 1.0 s), 30 + 30 tokens, completed; openai gray at host, model gray" in shown
    assert "tokens not reported, failed: agent_error" in shown
    story = json.loads(ask("sessions", "show", "11111111-1111-1111-1111-111111111111", "--json").out)
    assert [each["reason"] for each in story["responses"]] == [None, "agent_error"]


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["--since", "yesterday"], "neither a day"),
        (["--since", "2026-02-30"], "neither a day"),
        (["--since", "2026-02-02", "--until", "2026-02-01"], "must not be later"),
        (["--since", "7d", "--days", "3"], "only one of --days and --since"),
        (["--csv", "--json"], "only one of --csv and --json"),
        (["--until", "9999-12-31"], "too far"),
        (["--by", "week"], "'week'"),
    ],
)
def test_days_that_cannot_be_are_told(ask: Lastcall, words: list[str], mistake: str) -> None:
    answer = ask("stats", *words)
    assert (answer.code, mistake in answer.err) == (2, True), answer.err


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
