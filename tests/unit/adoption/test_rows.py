"""Rows of other tables, as the sessions that they tell of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from lastcall.adoption.columns import BadImport, ColumnMapping, map_columns
from lastcall.adoption.rows import AT_START, BY_DURATION, AdoptedSession, BadRow, RowReader
from lastcall.store.imports.source import SourceColumn
from lastcall.store.records import EndReason

NOW = datetime(2026, 2, 1, tzinfo=UTC)
START = datetime(2026, 1, 5, 10, tzinfo=UTC)
NAMES = ("session_id", "user_id", "session_start", "session_end", "is_active", "duration_seconds", "seen", "updated_at")


def after(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def columns(*names: str) -> list[SourceColumn]:
    return [SourceColumn(name, "text") for name in names]


def mapping() -> ColumnMapping:
    return map_columns(columns(*NAMES), [("last_seen", "seen"), ("last_seen", "updated_at")])


def read(**values: str | None) -> AdoptedSession:
    row = {"session_id": "a", "user_id": "ada", "session_start": after(0), **values}
    return RowReader("chats", mapping(), NAMES, None, NOW).read([row.get(name) for name in NAMES])


def lasted(**values: str | None) -> tuple[float, str | None]:
    session = read(**values)
    return (session.session_end - session.session_start).total_seconds(), session.dated_by


def test_an_open_session_ends_at_the_best_sign_that_there_is() -> None:
    assert lasted(is_active="true", seen=after(60), updated_at=after(90)) == (60, "seen")
    assert lasted(is_active="true", updated_at=after(90)) == (90, "updated_at")
    assert lasted(is_active="true", seen=after(-5), updated_at=after(90)) == (90, "updated_at")
    assert lasted(is_active="true", seen="never", updated_at=(NOW + timedelta(days=1)).isoformat()) == (0, AT_START)
    assert lasted(is_active="true", session_end=after(30), updated_at=after(90)) == (30, "session_end")
    assert read(is_active="1").end_reason is EndReason.OWNER_DIED


def test_a_closed_session_without_an_end_ends_by_its_duration_or_a_sign() -> None:
    assert lasted(is_active="f", duration_seconds="20.5", seen=after(60)) == (20.5, BY_DURATION)
    assert lasted(is_active="f", duration_seconds="-1", seen=after(60)) == (60, "seen")
    assert lasted(is_active="f", session_end=after(10)) == (10, None)
    assert read(is_active="f").end_reason is EndReason.BY_HAND


def test_durations_that_are_not_the_difference_are_noticed() -> None:
    assert read(session_end=after(10), duration_seconds="12").duration_was_wrong
    assert not read(session_end=after(10), duration_seconds="10.4").duration_was_wrong
    assert not read(session_end=after(10)).duration_was_wrong


def test_no_session_ends_before_its_start_or_after_the_import() -> None:
    turned = read(session_end=after(-10))
    assert (turned.session_end, turned.ended_too_soon) == (START, True)
    assert read(session_end=(NOW + timedelta(days=1)).isoformat()).session_end == NOW


def test_ids_follow_from_the_source_and_the_original_id() -> None:
    again = read(user_id="someone else")
    assert (read().session_id, read().conversation_id) == (again.session_id, again.conversation_id)
    assert read(session_id="b").session_id != again.session_id
    other = RowReader("other", mapping(), NAMES, None, NOW).read(["a", "ada", after(0), *[None] * 5])
    assert other.session_id != again.session_id


def test_users_get_the_one_form_of_their_names() -> None:
    assert read(user_id=" jose\u0301 ").user_id == "jos\u00e9"
    assert read(user_id="a\u200bb").user_id == "a\u200bb"  # such a name is stored already


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"session_id": ""}, "session_id is empty"),
        ({"session_id": "x" * 1001}, "more than 1000"),
        ({"session_id": "a\0"}, "NUL"),
        ({"user_id": "u" * 257}, "more than 256"),
        ({"session_start": "soon"}, "is not a time"),
        ({"session_end": "soon"}, "is not a time"),
        ({"session_start": "2026-02-01T00:00:01Z"}, "in the future"),
    ],
)
def test_a_row_that_tells_of_no_session_is_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        read(**values)


def test_columns_are_guessed_by_their_names_unless_they_are_given() -> None:
    found = columns("id", "email", "created_at", "updated_at", "last_message_at", "status")
    guessed = map_columns(found, [])
    assert guessed.columns == {
        "session_id": "id", "user_id": "email", "session_start": "created_at", "is_active": "status",
    }  # fmt: skip
    assert guessed.last_seen == ("last_message_at", "updated_at")
    assert guessed.names[0] == "id"
    given = map_columns(found, [("is_active", ""), ("session_end", "updated_at")], ["messages.at"])
    assert "is_active" not in given.columns
    assert given.columns["session_end"] == "updated_at"
    assert given.last_seen == ("messages.at", "last_message_at")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([("user_id", "")], "add --column user_id="),
        ([("end", "x")], "known are"),
        ([("user_id", "who")], "no column who"),
    ],
)
def test_columns_that_are_missing_or_unknown_are_told(chosen: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(BadImport, match=said):
        map_columns(columns("id", "email", "created_at"), chosen)
