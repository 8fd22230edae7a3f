"""`lastcall import` on real databases: the story's table, other tables, and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.databases import new_database, psql
from tests.support.lastcall_command import Answer, process
from tests.support.story_table import ACTIVE, ALERT, METRICS, OLDEST_HOURS, ORPHANS, REPAIR, ROWS, make_table

STORY = "public.conversation_sessions"


def told(answer: Answer) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def in_schema(url: str, schema: str) -> str:
    return f"{url}&options={quote(f'-csearch_path={schema}')}"


@pytest.fixture
def app(database_url: str) -> Iterator[str]:
    """The URL of a database that somebody's application uses."""
    with new_database(database_url) as url:
        yield url


@pytest.fixture
def ours(app: str) -> str:
    """The same, with a schema of ours on the search path, which does not exist yet."""
    return in_schema(app, "lastcall")


Import = Callable[..., Answer]


@pytest.fixture
def take(ours: str) -> Import:
    return lambda *arguments: process("import", "--database-url", ours, *arguments)


def count(url: str) -> int:
    return int(psql(url, "SELECT count(*) FROM conversation_sessions"))


def metrics(url: str) -> list[list[str]]:
    return [line.split("|") for line in psql(url, METRICS).splitlines()]


@pytest.fixture
def story(app: str) -> str:
    make_table(app)
    return app


# --- the story


def test_the_storys_statements_are_right_before_and_after_its_table_is_adopted(
    story: str, ours: str, take: Import
) -> None:
    """Its repair, its check for orphans, its alert and its daily metrics."""
    orphans = [line.split("|") for line in psql(story, ORPHANS).splitlines()]
    assert len(orphans) == ACTIVE
    assert int(max(float(hours) for _, _, hours in orphans)) == OLDEST_HOURS
    assert psql(story, ALERT) == str(ACTIVE)
    before = metrics(story)
    assert sum(int(still_active) for *_, still_active in before) > 0

    answer = take("--from-table", STORY)
    assert answer.code == 0, answer.err

    assert psql(ours, ORPHANS) == ""
    assert psql(ours, ALERT) == "0"
    after = metrics(ours)
    assert [(date, total) for date, total, *_ in after] == [(date, total) for date, total, *_ in before]
    assert {still_active for *_, still_active in after} == {"0"}
    assert count(ours) == ROWS
    assert psql(ours, REPAIR, "SELECT count(*) FROM conversation_sessions WHERE end_reason = 'by_hand'") == "67"
    # Averages are those of the true durations: from the start to the last sign, which is the true end in all rows.
    truth = METRICS.replace("AVG(duration_seconds)", "AVG(EXTRACT(EPOCH FROM updated_at - session_start))")
    true = [line.split("|") for line in psql(story, truth).splitlines()]
    assert [float(average) for _, _, average, _ in after] == pytest.approx([float(each[2]) for each in true])
    # The source is as it was; its own repair finds what it found before.
    assert psql(story, REPAIR, ALERT) == "0"


def test_open_sessions_are_dated_at_their_last_sign_and_keep_their_ids(story: str, ours: str, take: Import) -> None:
    report = told(take("--from-table", STORY, "--json"))
    assert (report["rows"], report["imported"], report["was_active"]) == (ROWS, ROWS, ACTIVE)
    assert report["dated_by"] == {"updated_at": ACTIVE}
    assert report["problems"] == []
    wrong = """SELECT t.session_id FROM public.conversation_sessions t LEFT JOIN conversation_sessions s
        ON s.original_id = t.session_id AND s.user_id = t.user_id AND s.session_start = t.session_start
        AND s.session_end = t.updated_at AND s.duration_seconds = extract(epoch FROM t.updated_at - t.session_start)
        AND s.imported_from = 'conversation_sessions'
        AND s.end_reason = CASE WHEN t.is_active THEN 'owner_died' ELSE 'by_hand' END
        WHERE s.session_id IS NULL"""
    assert psql(ours, wrong) == ""
    assert report["durations_changed"] == int(
        psql(
            story,
            f"SELECT count(*) FROM {STORY} WHERE duration_seconds <> extract(epoch FROM session_end - session_start)",
        )
    )
    listed = told(process("sessions", "--database-url", ours, "--limit", "100", "--json"))
    assert {each["original_id"] for each in listed} == set(psql(story, f"SELECT session_id FROM {STORY}").split())
    shown = process("sessions", "--database-url", ours, "--reason", "owner_died").out
    assert "original id" in shown
    assert "session_" in shown


def test_twice_is_once_and_an_interrupted_import_goes_on(story: str, ours: str, take: Import) -> None:
    psql(story, "CREATE TABLE some_of_them AS SELECT * FROM conversation_sessions LIMIT 30")
    first = told(take("--from-table", "some_of_them", "--source", "conversation_sessions", "--json"))
    again = told(take("--from-table", STORY, "--json"))
    third = told(take("--from-table", STORY, "--json"))
    assert [(each["imported"], each["present"]) for each in (first, again, third)] == [(30, 0), (55, 30), (0, 85)]
    assert count(ours) == ROWS
    assert psql(ours, "SELECT count(*) FROM conversations") == str(ROWS)


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(story: str, ours: str, take: Import) -> None:
    answer = take("--from-table", STORY, "--dry-run")
    assert answer.code == 0, answer.err
    assert "85 rows: 85 would be imported, 0 are there already, 0 left out." in answer.out
    assert f"{ACTIVE} were still active" in answer.out
    assert psql(story, "SELECT count(*) FROM pg_namespace WHERE nspname = 'lastcall'") == "0"
    take("--from-table", STORY)
    after = told(take("--from-table", STORY, "--dry-run", "--json"))
    assert (after["imported"], after["present"], after["dry_run"]) == (0, ROWS, True)


def test_serve_and_doctor_say_how_to_adopt_a_table_of_that_name(story: str) -> None:
    for command in ("serve", "doctor"):
        answer = process(command, "--database-url", story)
        assert f"lastcall import --from-table {STORY}" in answer.out + answer.err
        assert answer.code != 0
    answer = process("import", "--database-url", story, "--from-table", STORY)
    assert answer.code == 2
    assert "search_path" in answer.err


def test_what_was_imported_is_exported_and_erased_with_its_user(story: str, ours: str, take: Import) -> None:
    take("--from-table", STORY)
    lines = process("users", "export", "user-1", "--database-url", ours).out.splitlines()
    ids = {each["original_id"] for each in map(json.loads, lines) if each["type"] == "sessions"}
    assert ids == set(psql(story, f"SELECT session_id FROM {STORY} WHERE user_id = 'user-1'").split())
    assert process("users", "erase", "user-1", "--yes", "--database-url", ours).code == 0
    assert psql(ours, "SELECT count(*) FROM conversation_sessions WHERE user_id = 'user-1'") == "0"


# --- other tables

OTHER = """
CREATE TABLE "Chat Logs" (id {id} PRIMARY KEY, account_id integer, created timestamp, "end" timestamp, status text,
                          modified_at timestamp);
INSERT INTO "Chat Logs" VALUES
    ({one}, 7, '2026-01-05 10:00', '2026-01-05 10:30', 'closed', '2026-01-05 11:00'),
    ({two}, 7, '2026-07-05 10:00', NULL, 'active', '2026-07-05 10:45'),
    ({three}, 8, '2026-07-06 10:00', NULL, 'active', NULL);
"""
IDS = {
    "integer": ("1", "2", "3"),
    "uuid": tuple(f"'{n * 8}-0000-4000-8000-{n * 12}'" for n in "123"),
    "text": ("'a b'", "'ä'", "'" + "x" * 300 + "'"),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_type_are_kept_and_times_are_read_in_the_zone_that_is_given(
    kind: str, app: str, ours: str, take: Import
) -> None:
    """From another database, whose columns have other names."""
    with new_database(app.replace("/" + app.split("/")[-1].split("?")[0] + "?", "/postgres?")) as theirs:
        psql(theirs, OTHER.format(id=kind, one=IDS[kind][0], two=IDS[kind][1], three=IDS[kind][2]))
        source = ("--from-table", '"Chat Logs"', "--from-url", theirs)
        refused = take(*source)
        assert refused.code == 2
        assert refused.err.count("\n") == 1
        assert "the times in created have no time zone: add --time-zone" in refused.err
        report = told(take(*source, "--time-zone", "Europe/Berlin", "--json"))
    assert report["columns"] == {
        "session_id": "id", "user_id": "account_id", "session_start": "created", "session_end": "end",
        "is_active": "status",
    }  # fmt: skip
    assert report["dated_by"] == {"modified_at": 1, "its start": 1}
    rows = psql(
        ours,
        "SELECT original_id, user_id, session_start, session_end, duration_seconds FROM conversation_sessions"
        " ORDER BY session_start",
    )
    kept = [each.strip("'") for each in IDS[kind]]
    assert rows.splitlines() == [
        f"{kept[0]}|7|2026-01-05 09:00:00+00|2026-01-05 09:30:00+00|1800",
        f"{kept[1]}|7|2026-07-05 08:00:00+00|2026-07-05 08:45:00+00|2700",
        f"{kept[2]}|8|2026-07-06 08:00:00+00|2026-07-06 08:00:00+00|0",
    ]


def test_the_last_message_dates_an_open_session(story: str, ours: str, take: Import) -> None:
    psql(
        story,
        "CREATE TABLE chat_messages (chat text, said_at timestamptz)",
        f"INSERT INTO chat_messages SELECT session_id, session_start + make_interval(secs => 10 * n)"
        f" FROM {STORY}, generate_series(1, 3) n WHERE is_active",
    )
    columns = ("--column", "messages.session_id=chat", "--column", "messages.created_at=said_at")
    table = ("--from-table", STORY, "--messages-table", "chat_messages")
    assert "--column messages.session_id=" in take(*table).err
    assert told(take(*table, *columns, "--json"))["dated_by"] == {"chat_messages.said_at": ACTIVE}
    lasted = "SELECT DISTINCT duration_seconds FROM conversation_sessions WHERE end_reason = 'owner_died'"
    assert psql(ours, lasted) == "30"


def test_rows_that_cannot_be_imported_are_counted_named_and_left_out(app: str, ours: str, take: Import) -> None:
    psql(
        app,
        "CREATE TABLE chats (session_id text, user_id text, session_start timestamptz, session_end timestamptz)",
        "INSERT INTO chats VALUES ('good', 'ada', now() - interval '1 h', now() - interval '30 min'),"
        " ('nobody', ' ', now(), NULL), (NULL, 'ada', now(), NULL), ('never', 'ada', NULL, NULL),"
        " ('later', 'ada', now() + interval '1 day', NULL),"
        " ('turned', 'ada', now() - interval '1 h', now() - interval '2 h'),"
        " ('good', 'ada', now() - interval '1 h', NULL), ('endless', 'ada', 'infinity', NULL),"
        " ('open end', 'ada', now() - interval '1 h', now() + interval '1 day')",
    )
    report = told(take("--from-table", "chats", "--json"))
    assert (report["rows"], report["imported"], report["skipped"]) == (9, 3, 6)
    problems = {each["problem"]: (each["rows"], each["original_ids"]) for each in report["problems"]}
    assert problems == {
        "user_id is empty": (1, ["nobody"]),
        "session_id is empty": (1, [""]),
        "session_start is empty": (1, ["never"]),
        "session_start is in the future (is --time-zone right?)": (1, ["later"]),
        "its end stands before its start: dated at its start": (1, ["turned"]),
        "another row has the same id": (1, ["good"]),
        "session_start is not a time": (1, ["endless"]),
    }
    assert psql(ours, "SELECT count(*) FROM conversation_sessions WHERE session_end > now()") == "0"


def test_two_sources_with_the_same_ids_are_told_apart_by_a_name(app: str, take: Import, tmp_path: Path) -> None:
    for name, user in (("one", "ada"), ("two", "ben")):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "chats.csv"
        path.write_text(f"id,user_id,started_at,ended_at\n1,{user},2026-01-05T10:00Z,2026-01-05T10:30Z\n")
    assert told(take("--from-csv", str(tmp_path / "one/chats.csv"), "--json"))["imported"] == 1
    [problem] = told(take("--from-csv", str(tmp_path / "two/chats.csv"), "--json"))["problems"]
    assert "--source" in problem["problem"]
    named = told(take("--from-csv", str(tmp_path / "two/chats.csv"), "--source", "two", "--json"))
    assert named["imported"] == 1


def test_a_file_is_imported_with_times_of_any_form(ours: str, take: Import, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 5, 10, tzinfo=UTC)
    path = tmp_path / "chats.csv"
    seconds = int(moment.timestamp())
    path.write_text(
        "\ufeffid;user_id;started_at;ended_at;is_active\n"
        f"1;ada;{seconds};{seconds + 60};0\n2;ada;{seconds * 1000};{(seconds + 60) * 1000};f\n"
        '3;"ada";2026-01-05T11:00:00+01:00;2026-01-05 10:01:00Z;no\n\n',
        encoding="utf-8",
    )
    assert told(take("--from-csv", str(path), "--json"))["imported"] == 3
    times = psql(ours, "SELECT DISTINCT session_start, duration_seconds FROM conversation_sessions")
    assert times == "2026-01-05 10:00:00+00|60"
    path.write_text("id,user_id,started_at\n4,ada,2026-01-05 10:00\n")
    assert "add --time-zone" in take("--from-csv", str(path)).err
    path.write_text("id,user_id,started_at\n4,ada\n")
    assert "row 2" in take("--from-csv", str(path)).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-table", "nothing_here"), "there is no table nothing_here"),
        (("--from-table", STORY, "--column", "user_id=who"), "no column who"),
        (("--from-table", STORY, "--column", "who=user_id"), "known are session_id, user_id"),
        (("--from-table", STORY, "--column", "user_id="), "add --column user_id="),
        (("--from-table", STORY, "--time-zone", "Nowhere"), "--time-zone Nowhere is not known"),
        (("--from-table", "lastcall.conversation_sessions"), "lastcall's own"),
        ((), "either --from-table or --from-csv"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], said: str, story: str, take: Import) -> None:
    if "lastcall.conversation_sessions" in arguments:
        take("--from-table", STORY)
    answer = take(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
