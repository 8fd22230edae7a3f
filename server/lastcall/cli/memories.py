"""`lastcall memories`."""

from __future__ import annotations

from typing import Any

import click

from ..store import reports
from .options import UserName, limit_option, question_options
from .running import ask
from .tables import UUID_CHARS, Column, moment, one_line, print_json, print_limit, print_table

MEMORIES = 100
USER_CHARS_NARROW = 17  # leaves room for the other columns in a terminal of 80


@click.command("retry")
@click.argument("user", required=False, type=UserName())
@question_options
def retry_memories(*, user: str | None, as_json: bool, **database: Any) -> None:
    """Retry memory finalization that failed, for USER or for all users."""

    async def question(store: reports.Rows) -> int:
        return await reports.retry_memories(store, user)

    count = ask(question, writes=True, **database)
    if as_json:
        print_json({"retried": count})
    else:
        click.echo(f"Memory finalization of {count} {'session' if count == 1 else 'sessions'} will be retried.")


@click.command("memories")
@click.argument("user", required=False, type=UserName())
@limit_option(MEMORIES)
@question_options
def memories(*, user: str | None, limit: int, as_json: bool, **database: Any) -> None:
    """List the memories of USER, or of all users, newest first, and the sessions whose memory is pending."""

    async def question(store: reports.Rows) -> reports.MemoriesReport:
        return await reports.list_memories(store, user=user, limit=limit)

    found = ask(question, **database)
    if as_json:
        print_json(found)
        return
    if found.memories:
        print_table(_MEMORY_COLUMNS, [_memory_cells(each) for each in found.memories])
        print_limit(found.memories, limit)
    else:
        click.echo("No memories." if user is None else f"No memories of {one_line(user)}.")
    click.echo(_backlog_line(found.backlog))


_MEMORY_COLUMNS = (
    Column("user", below=1, whole=False, most=USER_CHARS_NARROW),
    Column("kind"),
    Column("updated (UTC)"),
    Column("content", below=1, whole=False, least=UUID_CHARS + 2),
    Column("from session"),
)


def _memory_cells(each: reports.MemoryReport) -> list[str]:
    source = "-" if each.source_session_id is None else str(each.source_session_id)
    return [one_line(each.user_id), one_line(each.kind), moment(each.updated_at), one_line(each.content), source]


def _backlog_line(backlog: reports.BacklogReport) -> str:
    line = f"Memory of ended sessions: {backlog.pending} pending, {backlog.failed} failed"
    if backlog.attempts_max:
        line += f" (up to {backlog.attempts_max} attempts)"
    return line + (f"; last error: {one_line(backlog.last_error)}" if backlog.last_error else "") + "."
