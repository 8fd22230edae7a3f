"""Which database a command means, and the URL that it prints."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from lastcall.embedded import cluster

from ..support.lastcall_command import Answer, Lastcall


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
    assert lastcall("migrate", "--partitions", "2", *place).code == 0
    assert lastcall("migrate", *place).code == 0
    refused = lastcall("migrate", "--partitions", "0", *place)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "have 2 partitions, and keep them" in refused.err
    assert lastcall("sessions", *place).out == "No sessions.\n"
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 43", url).stdout == "43\n"  # a query left it running
    assert "was stopped" in lastcall("database-url", "--stop", *place).err
    assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 42", url).returncode != 0
    assert "was not running" in lastcall("database-url", "--stop", *place).err


def test_what_is_kept_too_long_is_deleted_by_hand(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    sql(
        "INSERT INTO conversation_sessions (user_id, is_active, session_start, session_end)"
        " SELECT 'ada', false, at, at FROM (VALUES (timestamptz '2020-01-01Z'), (now())) AS session (at)"
    )
    counts = "0 messages, 1 sessions and 0 lines of the audit log"
    assert ask("prune", "--session-days", "365", "--dry-run") == Answer(0, f"To be deleted: {counts}.\n", "")
    assert sql("SELECT count(*) FROM conversation_sessions") == ["2"]
    assert ask("prune", "--session-days", "365") == Answer(0, f"Deleted: {counts}.\n", "")
    assert sql("SELECT count(*) FROM conversation_sessions") == ["1"]
    pruned = json.loads(ask("prune", "--session-days", "365", "--transcript-days", "1", "--json").out)
    assert pruned == {"messages": 0, "sessions": 0, "audit_lines": 0}


@pytest.mark.parametrize("days", [[], ["--session-days", "0"], ["--audit-days", "1e9"], ["--transcript-days", "nan"]])
def test_nothing_is_deleted_without_a_number_of_days(ask: Lastcall, days: list[str]) -> None:
    answer = ask("prune", *days)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
