"""Which column of somebody's table holds what: by their names, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..store.imports.source import SourceColumn


class BadImport(Exception):
    """The source cannot be imported like this; the message is one line for the user that names the fix."""


ID, USER, START = "session_id", "user_id", "session_start"
END, ACTIVE, DURATION = "session_end", "is_active", "duration_seconds"
LAST_SEEN = "last_seen"
REQUIRED = (ID, USER, START)

# In this order: the first that the table has is taken; of LAST_SEEN all, and then the first that has a value.
GUESSES: Mapping[str, tuple[str, ...]] = {
    ID: ("session_id", "id", "uuid", "session_uuid", "chat_id", "conversation_id", "session"),
    USER: ("user_id", "user_name", "username", "user", "user_uuid", "account_id", "customer_id", "email", "owner_id"),
    START: ("session_start", "started_at", "start_time", "start_at", "began_at", "created_at", "created", "start"),
    END: ("session_end", "ended_at", "end_time", "end_at", "finished_at", "closed_at", "disconnected_at", "end"),
    ACTIVE: ("is_active", "active", "is_open", "open", "state", "status"),
    DURATION: ("duration_seconds", "duration_secs", "duration_s", "duration"),
    LAST_SEEN: (
        "last_message_at", "last_activity_at", "last_activity", "last_active_at", "last_seen_at", "last_seen",
        "heartbeat_at", "updated_at", "modified_at", "updated",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Names of the source's columns, by what they hold. last_seen: evidence of life, the best first."""

    columns: Mapping[str, str]
    last_seen: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All that have to be read, each once."""
        return list(dict.fromkeys((*self.columns.values(), *self.last_seen)))

    @property
    def times(self) -> list[str]:
        return [*(self.columns[each] for each in (START, END) if each in self.columns), *self.last_seen]


def map_columns(
    found: Sequence[SourceColumn], chosen: Iterable[tuple[str, str]], evidence: Sequence[str] = ()
) -> ColumnMapping:
    """Says what each column holds.

    Args:
        found: The source's columns.
        chosen: By the user: what it holds, and the name of the column. An empty name: no column does.
        evidence: Columns of `found` that are known to hold when a session was last seen; better than guesses.

    Raises:
        BadImport: A column is missing or unknown.
    """
    names = {each.name for each in found}
    given = _given(chosen, names)
    columns: dict[str, str] = {}
    for role, guesses in GUESSES.items():
        if role == LAST_SEEN:
            continue
        name = given[role][-1] if role in given else next((each for each in guesses if each in names), "")
        if name:
            columns[role] = name
        elif role in REQUIRED:
            raise BadImport(f"no column of the source looks like {role}: add --column {role}=…; it has {_list(names)}")
    guessed = [each for each in GUESSES[LAST_SEEN] if each in names and each not in columns.values()]
    seen = given.get(LAST_SEEN, [*evidence, *guessed])
    return ColumnMapping(columns, tuple(dict.fromkeys(each for each in seen if each)))


def _given(chosen: Iterable[tuple[str, str]], names: set[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for role, name in chosen:
        if role not in GUESSES:
            raise BadImport(f"--column {role}=… is not known; known are {', '.join(GUESSES)}")
        if name and name not in names:
            raise BadImport(f"the source has no column {name}; it has {_list(names)}")
        given.setdefault(role, []).append(name)
    return given


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
