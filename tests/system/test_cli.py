"""The command line on a real database, in a process of its own where that matters."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import structlog
import trio
from lastcall import __version__
from lastcall.auth.origins import is_loopback
from lastcall.cli.entry import run
from lastcall.cli.tables import duration
from lastcall.config import Settings
from lastcall.embedded import cluster
from lastcall.logs import Level, configure, printable, redact, write_line

from tests.support.embedded_data import embedded_data

from ..support.clients import connect
from ..support.lastcall_command import HOLD_SECONDS, Answer, process
from ..support.processes import run_server
from .official.agent import ENDLESS

SECRET = "hush-hush"
READ_BYTES = 4_096
OLD_SESSIONS = """
    INSERT INTO conversation_sessions (user_id, session_start)
    SELECT 'ann-' || i, now() - interval '3 hours' FROM generate_series(1, {count}) AS i
"""
FLAGS = [each.name for each in fields(Settings) if each.metadata.get("flag")]


Lastcall = Callable[..., Answer]


@contextmanager
def kept_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


@pytest.fixture
def lastcall(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lastcall:
    """The command in this process."""
    for name in [name for name in os.environ if name.startswith("LASTCALL_") or name == "COLUMNS"]:
        monkeypatch.delenv(name)

    def command(*arguments: str) -> Answer:
        with kept_logging():
            code = run(arguments)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return command


@pytest.fixture
def ask(lastcall: Lastcall, database_url: str, sql: object) -> Lastcall:
    """The command in this process, on the test database, which `sql` emptied."""
    return lambda *arguments: lastcall(*arguments, "--database-url", database_url)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's own."""
    with embedded_data() as directory:
        yield directory


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["serve", "--prt", "1"], "Did you mean '--port'"),
        (["serv"], "'serve'"),
        (["serve", "--port", "70000"], "0<=x<=65535"),
        (["serve", "--port", "http"], "--port"),
        (["serve", "--ping-interval", "0"], "x>0"),
        (["serve", "--ping-timeout", "nan"], "not a finite number"),
        (["serve", "--drain-seconds", "inf"], "not a finite number"),
        (["serve", "--drain-seconds", "-1"], "x>=0"),
        (["serve", "--message-bytes-max", "0"], "x>=1"),
        (["serve", "--log-level", "loud"], "debug"),
        (["serve", "--allow-origin", "*"], "https://chat.example"),
        (["serve", "--trusted-proxy", "10.0.0.1/8"], "10.0.0.0/8 or fd00::/8"),
        (["serve", "--trusted-proxy", "proxy.example"], "10.0.0.0/8 or fd00::/8"),
        (["serve", "--trusted-proxy", "10.0.0.1", "--trusted-proxy", "::/0"], "would trust everybody"),
        (["serve", "--tls-cert", "cert.pem"], "go together"),
        (["serve", "--tls-cert", "none.pem", "--tls-key", "none.pem"], "cannot read none.pem"),
        (["keys", "create", " "], "user id is empty"),
        (["keys", "create", "ada", "--scope", "root"], "'service'"),
        (["keys", "revoke", "ada"], "UUID"),
        (["serve", "--database-url", "mysql://x/y"], "postgresql://user@127.0.0.1:5432/name"),
        (["serve", "--database-url", "postgresql://h:99999/x"], "postgresql://user@127.0.0.1:5432/name"),
        (["sessions", "--since", "yesterday"], "24h"),
        (["sessions", "--reason", "boredom"], "client_closed"),
        (["sessions", "--active", "--ended"], "only one of"),
        (["sessions", "--limit", "0"], "1<=x"),
        (["orphans", "--hours", "nan"], "not a finite number"),
        (["stats", "now"], "lastcall stats --help"),
        (["database-url", "--stop", "--database-url", "postgresql://h/x"], "leave out --database-url"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix(lastcall: Lastcall, arguments: list[str], fix: str) -> None:
    answer = lastcall(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("lastcall: ")
    assert fix in answer.err


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["serve", "--prt", "1"], "--port"),
        (["stats", "--database-url", f"postgresql://u:{SECRET}@127.0.0.1:1/x"], "--database-url"),
        (["serve", "--agent", "echo", "--database-url", f"postgresql://u:{SECRET}@no.invalid/x"], "--database-url"),
        (["serve", "--database-url", f"postgresql://u:{SECRET}/x@127.0.0.1/x"], "percent-encoded"),
        (["stats", f"postgresql://u:{SECRET}@127.0.0.1/x"], "lastcall stats --help"),
    ],
)
def test_a_mistake_exits_with_2_and_never_shows_a_password(arguments: list[str], fix: str) -> None:
    answer = process(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert fix in answer.err
    assert SECRET not in answer.err


def test_an_absent_database_is_waited_for_and_then_reported() -> None:
    answer = process("serve", "--agent", "echo", "--database-url", f"postgresql://u:{SECRET}@127.0.0.1:1/x")
    waiting, failed = answer.err.splitlines()
    assert (answer.code, answer.out) == (2, "")
    assert "waiting_for_database" in waiting
    assert "--database-url" in failed
    assert SECRET not in answer.err


def test_a_wrong_password_is_one_line_without_the_password(database_url: str, sql: Callable[[str], list[str]]) -> None:
    access = Path(sql("SHOW hba_file")[0])
    before = access.read_text()
    sql(f"CREATE ROLE locked LOGIN PASSWORD 'not-{SECRET}'")
    access.write_text(f"local all locked scram-sha-256\n{before}")
    try:
        sql("SELECT pg_reload_conf()")
        answer = process("stats", "--database-url", database_url.replace("postgres@", f"locked:{SECRET}@"))
    finally:
        access.write_text(before)
        sql("SELECT pg_reload_conf()")
        sql("DROP ROLE locked")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "password authentication failed" in answer.err
    assert SECRET not in answer.err


def test_an_agent_that_does_not_exist_is_one_line(database_url: str) -> None:
    answer = process("serve", "--port", "0", "--agent", "nobody", "--database-url", database_url)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "echo" in answer.err


def test_a_port_that_is_taken_is_one_line(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = process("serve", "--port", port, "--agent", "echo", "--database-url", database_url)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "--port" in answer.err


def test_a_failure_is_one_line_and_debug_shows_the_traceback(ask: Lastcall, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(trio.sleep, 0)
            outer.start_soon(trio.sleep, 0)
            raise RuntimeError("the disk\nis full")

    monkeypatch.setattr("lastcall.store.reports.daily_stats", broken)
    answer = ask("stats")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "lastcall: failed: RuntimeError: the disk is full (LASTCALL_LOG_LEVEL=debug shows where)\n"
    monkeypatch.setenv("LASTCALL_LOG_LEVEL", "debug")
    assert "Traceback" in ask("stats").err


@pytest.mark.parametrize("where", ["lastcall.store.reports.daily_stats", "lastcall.cli.running.run_logged"])
def test_an_interrupted_command_exits_with_130_and_prints_nothing(
    lastcall: Lastcall, database_url: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert lastcall("stats", "--database-url", database_url) == Answer(130, "", "")


def test_help_and_version_skip_slow_imports() -> None:
    code = (
        "import sys; from lastcall.cli.entry import run; code = run(['--help']);"
        " slow = {'trio', 'asyncpg', 'openai', 'starlette', 'rich'} & set(sys.modules);"
        " sys.exit(f'imported: {slow}' if slow else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = process("--version")
    assert (answer.code, answer.out) == (0, f"lastcall {__version__}\n")


def test_a_server_imports_openai_only_for_its_agent() -> None:
    """It takes longer to import than all of the server."""
    code = "import sys, lastcall.main; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_command_it_shows_its_help(lastcall: Lastcall) -> None:
    answer = lastcall()
    assert (answer.code, answer.err) == (0, "")
    assert "database-url" in answer.out


@pytest.mark.parametrize("name", FLAGS)
def test_every_setting_is_documented_with_its_variable(lastcall: Lastcall, name: str) -> None:
    text = " ".join(lastcall("serve", "--help").out.replace("-\n", "-").split())
    assert f"--{name.replace('_', '-')} " in text
    assert f"LASTCALL_{name.upper()}" in text


def test_environment_variables_set_options_and_options_win(monkeypatch: pytest.MonkeyPatch, lastcall: Lastcall) -> None:
    got: list[Settings] = []

    async def serve(settings: Settings, *_: object) -> None:
        got.append(settings)

    monkeypatch.setattr("lastcall.main.serve", serve)
    values = {"port": "0", "data_dir": "elsewhere", "ping_interval": "1.5", "json_logs": "1", "agent": "echo"}
    for name, value in values.items():
        monkeypatch.setenv(f"LASTCALL_{name.upper()}", value)
    assert lastcall("serve").code == 0
    assert lastcall("serve", "--agent", "local").code == 0
    expected = Settings(port=0, data_dir=Path("elsewhere"), ping_interval=1.5, json_logs=True, agent="echo")
    assert got == [expected, replace(expected, agent="local")]


@pytest.mark.parametrize("json_logs", [False, True])
def test_a_server_prints_one_ready_line_and_exits_with_0_on_sigterm(durable_url: str, json_logs: bool) -> None:
    url = durable_url.replace("postgres@", f"postgres:{SECRET}@")  # which the database ignores
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--agent", "echo", "--database-url", url]
    command += ["--json-logs"] * json_logs
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=HOLD_SECONDS)
    assert (server.returncode, err) == (0, "")
    assert SECRET not in line + out
    if json_logs:
        ready = json.loads(line)
        assert list(ready) == ["timestamp", "level", "event", "url", "database", "agent"]
        assert (ready["event"], ready["level"], ready["agent"]) == ("ready", "info", "echo")
        assert [json.loads(each)["level"] for each in out.splitlines()]
    else:
        assert line.startswith("lastcall is ready at http://127.0.0.1:")
        assert "database: PostgreSQL at" in line
        assert line.endswith("agent: echo\n")
        assert out == ""


@pytest.mark.parametrize(("count", "code"), [(5, 0), (6, 1)])
def test_more_than_five_old_sessions_set_the_exit_code(
    ask: Lastcall, sql: Callable[[str], list[str]], count: int, code: int
) -> None:
    sql(OLD_SESSIONS.format(count=count))
    answer = ask("orphans", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["alert"], found["overdue"]) == (code, code == 1, count)
    text = ask("orphans")
    assert text.code == code
    assert ("ALERT" in text.out) == (code == 1)
    assert ask("orphans", "--alert-above", str(count)).code == 0
    assert ask("orphans", "--hours", "4", "--alert-above", "0").code == 0


def test_closing_orphans_repairs_and_lists_them(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    owner = "00000000-0000-0000-0000-000000000001"
    sql(
        "INSERT INTO server_instances (instance_id, hostname, pid, version, heartbeat_at)"
        f" VALUES ('{owner}', 'gone', 1, '0', now() - interval '1 hour')"
    )
    sql(
        "INSERT INTO conversation_sessions (user_id, instance_id, session_start)"
        f" SELECT 'ann', '{owner}', now() - interval '3 hours' FROM generate_series(1, 6)"
    )
    answer = ask("orphans", "--close", "--json")
    closed = json.loads(answer.out)["closed"]
    assert answer.code == 0
    assert sorted(each["session_id"] for each in closed) == sql(
        "SELECT session_id FROM conversation_sessions WHERE NOT is_active AND end_reason = 'owner_died'"
        " AND round(duration_seconds) BETWEEN 7199 AND 7201 ORDER BY session_id::text"
    )
    assert {each["end_reason"] for each in closed} == {"owner_died"}
    assert ask("orphans", "--close") == Answer(0, "No orphaned sessions to close.\n", "")
    assert ask("orphans").code == 0


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


@pytest.mark.parametrize("asked", ["jose\u0301", " josé "])
def test_a_user_is_asked_for_in_any_form_of_the_name(
    ask: Lastcall, sql: Callable[[str], list[str]], asked: str
) -> None:
    sql("INSERT INTO user_memories (user_id, kind, content) VALUES ('josé', 'fact', 'tea')")
    assert [each["content"] for each in json.loads(ask("memories", asked, "--json").out)["memories"]] == ["tea"]


LEARNED = """
    WITH talk AS (INSERT INTO conversations (user_id) VALUES ('{user}') RETURNING conversation_id, user_id),
    meeting AS (INSERT INTO conversation_sessions (conversation_id, user_id)
                SELECT conversation_id, user_id FROM talk RETURNING *),
    word AS (INSERT INTO messages (message_id, conversation_id, session_id, item_id, position, role, content, status)
             SELECT gen_random_uuid(), conversation_id, session_id, 'item_tea', 1, 'user', 'I like tea. {user}',
                    'completed'
               FROM meeting)
    INSERT INTO user_memories (user_id, kind, content, quote, source_session_id, source_item_id)
    SELECT user_id, 'like', 'I like tea.', 'I like tea.', session_id, 'item_tea' FROM meeting RETURNING memory_id
"""
KNOWN = "SELECT content FROM user_memories WHERE user_id = '{user}'"


def test_a_memory_is_corrected_without_secrets_and_of_its_own_user_only(
    ask: Lastcall, sql: Callable[[str], list[str]]
) -> None:
    (memory_id,) = sql(LEARNED.format(user="josé"))
    (other,) = sql(LEARNED.format(user="ben"))
    assert ask("memories", "edit", "ben", memory_id, "x") == Answer(2, "", f"lastcall: ben has no memory {memory_id}\n")
    answer = ask("memories", "edit", "jose\u0301", memory_id, " I like  coffee, my password is hunter2 ")
    says = "I like coffee, my password is [redacted]"
    assert answer == Answer(0, f"Memory {memory_id} says now: {says}\n", "")
    assert sql(KNOWN.format(user="josé")) == [says]
    edited = json.loads(ask("memories", "edit", "josé", memory_id, "I like cocoa.", "--json").out)
    assert edited == {"edited": int(memory_id), "content": "I like cocoa."}
    for content in (" ", "x" * 1001):
        assert "1 to 1000 characters" in ask("memories", "edit", "josé", memory_id, content).err
    assert sql(KNOWN.format(user="ben")) == ["I like tea."]
    assert sql(f"SELECT edited_at IS NULL FROM user_memories WHERE memory_id = {other}") == ["t"]


def test_a_memory_is_forgotten_by_its_own_user_only(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    (memory_id,) = sql(LEARNED.format(user="josé"))
    (other,) = sql(LEARNED.format(user="ben"))
    assert ask("memories", "forget", "ben", memory_id).err == f"lastcall: ben has no memory {memory_id}\n"
    assert ask("memories", "forget", "jose\u0301", memory_id) == Answer(0, f"Memory {memory_id} is forgotten.\n", "")
    assert sql(KNOWN.format(user="josé")) == []
    assert sql("SELECT count(*) FROM memory_tombstones WHERE user_id = 'josé'") == ["1"]
    assert ask("memories", "forget", "josé", memory_id).code == 2
    assert json.loads(ask("memories", "forget", "ben", other, "--json").out) == {"forgotten": int(other)}
    assert "ID" in ask("memories", "forget", "ben", "tea").err


def test_a_user_is_exported_as_lines_of_json(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    sql(LEARNED.format(user="josé"))
    sql(LEARNED.format(user="ben"))
    records = [json.loads(line) for line in ask("users", "export", "jose\u0301").out.splitlines()]
    assert [each["type"] for each in records] == ["memories", "sessions", "conversations", "messages"]
    memory, session, conversation, message = records
    assert (memory["content"], memory["quote"], memory["superseded_at"]) == ("I like tea.", "I like tea.", None)
    assert memory["source_session_id"] == session["session_id"] == message["session_id"]
    assert (message["role"], message["content"]) == ("user", "I like tea. josé")
    assert message["conversation_id"] == conversation["conversation_id"] == session["conversation_id"]
    assert ask("users", "export", "nobody") == Answer(2, "", "lastcall: nothing is stored of nobody\n")


def test_a_user_is_erased_once_that_is_confirmed(
    ask: Lastcall, sql: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(LEARNED.format(user="josé"))
    sql(LEARNED.format(user="ben"))
    for flags in ([], ["--json"]):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO("n\n"))
            answer = ask("users", "erase", "josé", *flags)
        assert (answer.code, answer.out) == (130, "")
        assert "Delete all conversations, memories and keys of josé?" in answer.err
    assert sql(KNOWN.format(user="josé")) == ["I like tea."]
    erased = "josé is erased: 1 sessions, 1 messages and 1 memories.\n"
    assert ask("users", "erase", "jose\u0301", "--yes") == Answer(0, erased, "")
    for table in ("conversations", "conversation_sessions", "user_memories"):
        assert sql(f"SELECT user_id FROM {table}") == ["ben"]
    counts = json.loads(ask("users", "erase", "ben", "--yes", "--json").out)
    assert counts == {"user_id": "ben", "sessions": 1, "messages": 1, "memories": 1}
    assert sql("SELECT FROM messages") == []


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


def test_a_query_creates_no_database(lastcall: Lastcall, tmp_path: Path) -> None:
    answer = lastcall("sessions", "--data-dir", str(tmp_path / "none"))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "lastcall serve" in answer.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("broken", ["port", "certificate"])
def test_a_server_that_cannot_listen_starts_and_makes_nothing(lastcall: Lastcall, data_dir: Path, broken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = {
            "port": ("--port", str(taken.getsockname()[1])),
            "certificate": ("--port", "0", "--tls-cert", str(data_dir / "none"), "--tls-key", str(data_dir / "none")),
        }
        answer = lastcall("serve", *options[broken], "--agent", "echo", "--data-dir", str(data_dir / "new"))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert list(data_dir.iterdir()) == []


def test_a_given_database_url_is_printed_back(lastcall: Lastcall, database_url: str) -> None:
    assert lastcall("database-url", "--database-url", database_url) == Answer(0, f"{database_url}\n", "")


def test_a_connection_string_for_libpq_is_printed_as_a_url_that_works(lastcall: Lastcall, database_url: str) -> None:
    [directory] = parse_qs(urlsplit(database_url).query)["host"]
    words = f"host={directory} user=postgres dbname=postgres connect_timeout=10 keepalives_idle=30"
    answer = lastcall("database-url", "--database-url", words)
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 42", answer.out.strip()).stdout == "42\n"
    assert "connect_timeout" not in answer.out
    assert lastcall("sessions", "--database-url", words) == lastcall("sessions", "--database-url", database_url)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DATABASE_URL": "postgresql://handed.out/x"}, "postgresql://handed.out/x"),
        ({"DATABASE_URL": "postgresql://h/x", "LASTCALL_DATABASE_URL": "postgresql://ours/x"}, "postgresql://ours/x"),
    ],
)
def test_a_platform_may_hand_out_the_url(
    lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert lastcall("database-url").out == f"{expected}\n"


def test_variables_of_another_database_do_not_touch_the_embedded_one(
    lastcall: Lastcall, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PGSERVICE", "none"), ("PGHOSTADDR", "127.0.0.9"), ("PGTARGETSESSIONATTRS", "standby")):
        monkeypatch.setenv(name, value)
    assert lastcall("keys", "create", "ada", "--data-dir", str(data_dir)).code == 0


def test_database_url_prints_a_url_that_works_until_stop(lastcall: Lastcall, data_dir: Path) -> None:
    place = ("--data-dir", str(data_dir))
    answer = lastcall("database-url", *place)
    assert (answer.code, answer.err.count("\n")) == (0, 1)
    assert "--stop" in answer.err
    (url,) = answer.out.splitlines()
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 42", url).stdout == "42\n"
    assert lastcall("migrate", *place).code == 0
    assert lastcall("sessions", *place).out == "No sessions.\n"
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 43", url).stdout == "43\n"  # a query left it running
    assert "was stopped" in lastcall("database-url", "--stop", *place).err
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 42", url).returncode != 0
    assert "was not running" in lastcall("database-url", "--stop", *place).err


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


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


# --- keys


def test_a_key_is_printed_once_and_stored_as_a_hash(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    made = ask("keys", "create", "ada")
    key = made.out.strip()
    assert re.fullmatch(r"sk-[\w-]{43}", key)
    assert "shown only once" in made.err
    assert key not in made.err
    assert sql("SELECT subject, scope, prefix FROM api_keys") == [f"ada|user|{key[:9]}"]
    assert sql(f"SELECT secret_hash = sha256('{key}') FROM api_keys") == ["t"]
    dump = "\n".join(sql("SELECT k::text FROM api_keys k"))
    listed = ask("keys", "list")
    assert f"{key[:9]}…" in listed.out
    assert key[9:] not in dump + listed.out + ask("keys", "list", "--json").out


def test_a_key_is_created_listed_and_revoked_as_json(ask: Lastcall) -> None:
    made = json.loads(ask("keys", "create", "backend", "--scope", "service", "--json").out)
    assert (made["subject"], made["scope"]) == ("backend", "service")
    [listed] = json.loads(ask("keys", "list", "--json").out)
    assert (listed["key_id"], listed["revoked_at"], listed["active_sessions"]) == (made["key_id"], None, 0)
    revoked = json.loads(ask("keys", "revoke", made["key_id"], "--json").out)
    assert (revoked["id"], revoked["closed_sessions"]) == (made["key_id"], 0)
    again = json.loads(ask("keys", "revoke", made["key_id"], "--json").out)
    assert again["revoked_at"] == revoked["revoked_at"]


def test_revoking_an_unknown_key_is_a_mistake(ask: Lastcall) -> None:
    answer = ask("keys", "revoke", str(uuid4()))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "lastcall keys list" in answer.err


def test_an_empty_key_list_says_who_may_connect(ask: Lastcall) -> None:
    assert "any client that can reach the server" in ask("keys", "list").out


def test_a_key_can_be_created_before_the_first_start(lastcall: Lastcall, data_dir: Path) -> None:
    answer = lastcall("keys", "create", "ada", "--data-dir", str(data_dir))
    assert (answer.code, answer.out[:3]) == (0, "sk-")
    assert "ada" in lastcall("keys", "list", "--data-dir", str(data_dir)).out


# --- listening beyond loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_only_loopback_is_served(durable_url: str, sql: Callable[[str], list[str]], host: str) -> None:
    arguments = ("serve", "--port", "0", "--agent", "echo", "--database-url", durable_url, "--host", host)
    answer = process(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "lastcall keys create" in answer.err


def test_with_a_key_or_a_token_secret_any_address_is_served(
    database_url: str, sql: Callable[[str], list[str]], ask: Lastcall, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    everywhere = ("--agent", "echo", "--database-url", database_url, "--host", "0.0.0.0")
    with run_server(*everywhere, "--jwt-secret-file", str(secret)) as server:
        assert server.url.startswith("http://0.0.0.0:")
    ask("keys", "create", "ada")
    with run_server(*everywhere) as server:
        assert server.url.startswith("http://0.0.0.0:")


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


def test_a_server_warns_at_its_start_of_secrets_that_others_can_read(database_url: str, tmp_path: Path) -> None:
    """And serves all the same: secrets that are mounted into a container often are readable."""
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o444)
    flags = ("--agent", "echo", "--jwt-secret-file", str(secret), "--trusted-proxy", "10.0.0.0/8")
    with run_server("--database-url", database_url, *flags) as server:
        warned = [line for line in server.log if line.get("check") == "secret_files"]
        assert [line["mend"] for line in warned] == [f"chmod 600 {secret}"]


async def test_ctrl_c_at_a_terminal_says_what_it_waits_for_and_how_many_sessions_it_closed(
    sql: Callable[[str], list[str]], durable_url: str
) -> None:
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--database-url", durable_url]
    command += ["--agent", "tests.system.official.agent:Patient"]
    waits = r"\rlastcall: waiting up to [\d.]+ s for the answer that is under way; Ctrl-C again cuts that short\r\n"
    terminal, theirs = os.openpty()
    server = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    try:
        assert server.stdout is not None
        url = (await server.stdout.receive_some()).decode().split()[4]
        async with connect(url, user="ada") as ada, connect(url, user="bob"):
            await ada.say(ENDLESS)
            await ada.send({"type": "response.create"})
            await ada.until("response.output_text.delta")
            server.send_signal(signal.SIGINT)
            told = await trio.to_thread.run_sync(os.read, terminal, READ_BYTES)
            assert re.fullmatch(waits, told.decode())
            await ada.closed()
        assert await server.wait() == 0
        assert os.read(terminal, READ_BYTES).decode() == "\rlastcall: closed 2 sessions\r\n"
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
        os.close(terminal)
