"""The command line on a real database, in a process of its own where that matters."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import trio
from lastcall import __version__
from lastcall.config import Settings

from ..support.clients import connect
from ..support.lastcall_command import HOLD_SECONDS, Answer, Lastcall, process
from ..support.processes import run_server
from .official.agent import ENDLESS

SECRET = "hush-hush"
READ_BYTES = 4_096
OLD_SESSIONS = """
    INSERT INTO conversation_sessions (user_id, session_start)
    SELECT 'ann-' || i, now() - interval '3 hours' FROM generate_series(1, {count}) AS i
"""
FLAGS = [each.name for each in fields(Settings) if each.metadata.get("flag")]


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


@pytest.mark.parametrize("group", ["keys", "users", "webhooks"])
def test_a_group_by_itself_shows_its_commands(lastcall: Lastcall, group: str) -> None:
    answer = lastcall(group)
    assert (answer.code, answer.err) == (0, "")
    assert "Commands:\n" in answer.out
