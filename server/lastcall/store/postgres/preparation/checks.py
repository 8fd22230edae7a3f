"""What must be true of a database server and of the settings that we do not set ourselves.

A start and `lastcall doctor` make the same checks: the first refuses some and logs the rest, the second shows all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ....runtime.check import Check, CheckStatus, fail, ok, warn
from ...errors import DatabaseNotReady, DatabaseUnusable

VERSION_MIN = 140_000  # PostgreSQL 14, as server_version_num counts
CLOCK_SECONDS_MAX = 2.0  # between this host's clock and the database's

# reset_val: what the role, the database or the server sets, whatever we have set since.
FACTS = """
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_encoding') AS encoding,
       current_setting('session_replication_role') AS replication_role, pg_is_in_recovery() AS is_standby,
       (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only') = 'on' AS read_only,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_names,
       (SELECT count(*) FROM pg_stat_replication) AS standbys,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synchronous,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL) AS unknown,
       quote_ident(current_database()) AS database, quote_ident(current_user) AS role
"""
# What gives sessions of this role in this database the settings $1: the nearest place wins.
PLACES = """
SELECT DISTINCT ON (setting) setting, CASE
       WHEN setrole <> 0 AND setdatabase <> 0
       THEN 'ALTER ROLE ' || quote_ident(session_user) || ' IN DATABASE ' || quote_ident(current_database())
       WHEN setrole <> 0 THEN 'ALTER ROLE ' || quote_ident(session_user)
       WHEN setdatabase <> 0 THEN 'ALTER DATABASE ' || quote_ident(current_database())
       ELSE 'ALTER ROLE ALL' END AS place
  FROM pg_db_role_setting, unnest(setconfig) AS pair, split_part(pair, '=', 1) AS setting
 WHERE setting = ANY ($1) AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
   AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
 ORDER BY setting, setrole <> 0 DESC, setdatabase <> 0 DESC
"""
SETTINGS_OF_OTHERS = ("default_transaction_read_only", "session_replication_role", "synchronous_commit")

VERSION, ENCODING, STANDBY, TRIGGERS = "version", "encoding", "standby", "triggers"
CONNECTIONS = "connections"
REFUSED = (VERSION, ENCODING, STANDBY, TRIGGERS)  # no start without these
_FOR_WRITING = (STANDBY, TRIGGERS)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Of the server and this session. Names are quoted where SQL needs it.

    Attributes:
        read_only, synchronous_commit: Before we set it.
        synchronous_names: `synchronous_standby_names`.
        standbys, synchronous, unknown: Standbys that are connected, those of them that commits wait for, and those of
            which this role may not see whether.
        places: By setting: the statement that gave it to this role or database, without its last words.
    """

    version: int
    encoding: str
    replication_role: str
    is_standby: bool
    read_only: bool
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_names: str
    standbys: int
    synchronous: int
    unknown: int
    database: str
    role: str
    places: Mapping[str, str]

    def set_right(self, setting: str, value: str) -> str:
        """The statement after which new sessions have this value of a setting."""
        place = self.places.get(setting)
        if place is not None:
            return f"{place} RESET {setting}"
        return f"ALTER SYSTEM SET {setting} = {value}; SELECT pg_reload_conf()"


async def read_facts(connection: Any) -> ServerFacts:
    places = {row["setting"]: row["place"] for row in await connection.fetch(PLACES, SETTINGS_OF_OTHERS)}
    return ServerFacts(**dict(await connection.fetchrow(FACTS)), places=places)


def require_usable(checks: Iterable[Check], *, writes: bool) -> None:
    """Raises `DatabaseUnusable` where the database cannot keep our promises. writes: a standby will not do."""
    for check in checks:
        if check.status is CheckStatus.FAIL and check.name in REFUSED and (writes or check.name not in _FOR_WRITING):
            kind = DatabaseNotReady if check.name == STANDBY else DatabaseUnusable  # it may be promoted in a moment
            raise kind(check.found, check.mend)


def server_checks(facts: ServerFacts) -> Iterator[Check]:
    """The checks of the server and its settings, those that a start refuses first."""
    yield _version(facts)
    yield _encoding(facts)
    yield _standby(facts)
    yield _triggers(facts)
    yield _durability(facts)
    yield from _crash_safety(facts)
    yield _replication(facts)


def _version(facts: ServerFacts) -> Check:
    major = facts.version // 10_000
    if facts.version < VERSION_MIN:
        return fail(VERSION, f"PostgreSQL {major} is too old", "lastcall needs 14 or newer")
    return ok(VERSION, f"PostgreSQL {major}.{facts.version % 10_000}")


def _encoding(facts: ServerFacts) -> Check:
    if facts.encoding != "UTF8":
        return fail(
            ENCODING,
            f"the database {facts.database} has the encoding {facts.encoding}, which cannot hold every message",
            "use another database: createdb --encoding=UTF8 --template=template0",
        )
    return ok(ENCODING, facts.encoding)


def _standby(facts: ServerFacts) -> Check:
    if facts.is_standby:
        return fail(STANDBY, "this PostgreSQL is a standby, which takes no writes", "use its primary")
    if facts.read_only:
        # Where it is on, nothing can be altered before it is off for the session that does it.
        right = facts.set_right("default_transaction_read_only", "off")
        mend = f"SET default_transaction_read_only = off; {right}"
        return fail(STANDBY, "default_transaction_read_only is on, so that it takes no writes", mend)
    return ok(STANDBY, "it is a primary and takes writes")


def _triggers(facts: ServerFacts) -> Check:
    if facts.replication_role != "origin":
        return fail(
            TRIGGERS,
            f"session_replication_role is {facts.replication_role}, so that triggers do not run",
            facts.set_right("session_replication_role", "origin"),
        )
    return ok(TRIGGERS, "triggers run")


def _durability(facts: ServerFacts) -> Check:
    if facts.synchronous_commit == "off":
        return warn(
            "synchronous_commit",
            "synchronous_commit is off: set to on for our own connections, as a crash would lose acknowledged items",
            facts.set_right("synchronous_commit", "on"),
        )
    return ok("synchronous_commit", f"synchronous_commit is {facts.synchronous_commit}")


def _crash_safety(facts: ServerFacts) -> Iterator[Check]:
    if facts.fsync == "off":
        found = "fsync is off: a crash of the machine can lose acknowledged items, or the whole database"
        yield warn("fsync", found, facts.set_right("fsync", "on"))
    if facts.full_page_writes == "off":
        found = "full_page_writes is off: a crash of the machine can destroy the database"
        yield warn("full_page_writes", found, facts.set_right("full_page_writes", "on"))
    if facts.fsync == facts.full_page_writes == "on":
        yield ok("fsync", "a crash of the machine loses nothing")


def _replication(facts: ServerFacts) -> Check:
    """Nothing that is refused: a primary may start before its standbys, and servers before both."""
    name, waits = "replication", facts.synchronous_commit not in ("off", "local")
    standbys = f"{facts.standbys} standby{'' if facts.standbys == 1 else 's'}"
    if facts.synchronous_names and waits and facts.synchronous + facts.unknown == 0:
        return fail(
            name,
            f"no standby of synchronous_standby_names ({facts.synchronous_names}) is connected: every commit waits",
            "connect one, or ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()",
        )
    if facts.standbys == 0 or facts.unknown:
        return ok(name, f"{standbys} connected" if facts.standbys else "no standby is connected")
    if facts.synchronous == 0 or not waits:
        return warn(
            name,
            f"{standbys} connected, and commits wait for none: a failover can lose acknowledged items",
            f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; {facts.set_right('synchronous_commit', 'on')}"
            if not waits
            else "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; SELECT pg_reload_conf()",
        )
    return ok(name, f"{standbys} connected, commits wait for {facts.synchronous}")


def connection_checks(rows: Iterable[Any], *, own: int, needed: int) -> Iterator[Check]:
    """Whether a server can have the connections that it needs.

    Args:
        rows: Of the query `connection_limits`.
        own: Connections that are open and would be this server's.
        needed: By each server.
    """
    checks = [check for row in rows if (check := _limit(row, own, needed)) is not None]
    yield from checks or [ok(CONNECTIONS, f"each server needs {needed}, and as many are left")]


def _limit(row: Any, own: int, needed: int) -> Check | None:
    whose, limit = row["whose"], row["connections_max"]
    free = max(limit - row["used"] + own, 0)
    if limit < needed:
        found = f"{whose} may have {limit} connections at once, but each server needs {needed}"
        return fail(CONNECTIONS, found, _allow(row, needed))
    if free < needed:
        found = f"{whose} has {free} connections left, but a server that starts needs {needed}"
        return warn(CONNECTIONS, found, f"{_allow(row, limit - free + needed)}, or end other programs")
    return None


def _allow(row: Any, connections: int) -> str:
    return f"{row['remedy']} {connections + row['reserved']}{row['afterwards']}"


async def check_clock(connection: Any) -> Check:
    """Compares this host's clock with the database's; only the time that the answer takes is unsure."""
    before = time.time()
    theirs = (await connection.fetchval("SELECT clock_timestamp()")).timestamp()
    return clock_check(before, theirs, time.time())


def clock_check(before: float, theirs: float, after: float) -> Check:
    """before, after: this host's clock around the question; theirs: the database's at some moment between (seconds)."""
    ahead = before - theirs if theirs < before else min(after - theirs, 0.0)
    if abs(ahead) > CLOCK_SECONDS_MAX:
        side = "ahead of" if ahead > 0 else "behind"
        return warn(
            "clock",
            f"this host's clock is {abs(ahead):.1f} s {side} the database's, so tokens and logs do not fit the rows",
            "run an NTP client on both, such as chrony (timedatectl set-ntp true)",
        )
    return ok("clock", f"this host's and the database's agree within {CLOCK_SECONDS_MAX:g} s")
