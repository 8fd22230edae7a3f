"""`lastcall memories` and `lastcall users`: what is stored of people."""

from __future__ import annotations

from typing import Any

import click

from ..store import reports
from ..store.people import reports as people
from .kinds import UserName
from .options import limit_option, question_options
from .running import ask, operator
from .tables import UUID_CHARS, Column, moment, one_line, print_json, print_limit, print_table

MEMORIES = 100
CONTENT_CHARS_MAX = 1_000
USER_CHARS_NARROW = 10  # leaves room for the other columns in a terminal of 80


@click.command("retry")
@click.argument("user", required=False, type=UserName())
@question_options
def retry_memories(*, user: str | None, as_json: bool, **database: Any) -> None:
    """Retry memory finalization that failed, for USER or for all users."""

    async def question(store: reports.Rows) -> int:
        from ..store.operators.acts import retry_memories as retry

        return await retry(store, operator(), user=user)

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


@click.command("forget")
@click.argument("user", type=UserName())
@click.argument("memory_id", type=click.IntRange(min=1), metavar="ID")
@question_options
def forget_memory(*, user: str, memory_id: int, as_json: bool, **database: Any) -> None:
    """Erase memory ID of USER. It is not learned again from the same words."""

    async def question(store: reports.Rows) -> bool:
        from ..store.operators.acts import forget_memory as forget

        return await forget(store, memory_id, operator(), user=user)

    _require(ask(question, writes=True, **database), user, memory_id)
    if as_json:
        print_json({"forgotten": memory_id})
    else:
        click.echo(f"Memory {memory_id} is forgotten.")


@click.command("edit")
@click.argument("user", type=UserName())
@click.argument("memory_id", type=click.IntRange(min=1), metavar="ID")
@click.argument("content")
@question_options
def edit_memory(*, user: str, memory_id: int, content: str, as_json: bool, **database: Any) -> None:
    """Change what memory ID of USER says to CONTENT."""
    from ..memory.facts.redaction import redacted
    from ..memory.facts.words import content_words

    text = redacted(" ".join(content.split()))
    if not 1 <= len(text) <= CONTENT_CHARS_MAX:
        raise click.UsageError(f"CONTENT must have 1 to {CONTENT_CHARS_MAX} characters")

    async def question(store: reports.Rows) -> bool:
        return await people.edit_memory(store, user, memory_id, text, content_words(text))

    _require(ask(question, writes=True, **database), user, memory_id)
    if as_json:
        print_json({"edited": memory_id, "content": text})
    else:
        click.echo(f"Memory {memory_id} says now: {one_line(text)}")


def _require(found: bool, user: str, memory_id: int) -> None:
    if not found:
        raise click.ClickException(f"{one_line(user)} has no memory {memory_id}")


_MEMORY_COLUMNS = (
    Column("id"),
    Column("user", below=1, whole=False, most=USER_CHARS_NARROW),
    Column("kind"),
    Column("updated (UTC)"),
    Column("content", below=1, whole=False, least=UUID_CHARS + 2),
    Column("from session"),
)


def _memory_cells(each: reports.MemoryReport) -> list[str]:
    source = "-" if each.source_session_id is None else str(each.source_session_id)
    who = one_line(each.user_id)
    return [str(each.memory_id), who, one_line(each.kind), moment(each.updated_at), one_line(each.content), source]


def _backlog_line(backlog: reports.BacklogReport) -> str:
    line = f"Memory of ended sessions: {backlog.pending} pending, {backlog.failed} failed"
    if backlog.attempts_max:
        line += f" (up to {backlog.attempts_max} attempts)"
    return line + (f"; last error: {one_line(backlog.last_error)}" if backlog.last_error else "") + "."


@click.group("users")
def users() -> None:
    """Export or erase everything that is stored of a user."""


@users.command("export")
@click.argument("user", type=UserName())
@question_options
def export_user(*, user: str, as_json: bool, **database: Any) -> None:
    """Print everything that is stored of USER: one JSON object a line, whose `type` says what it is."""

    async def question(store: reports.Rows) -> int:
        count = 0
        async for line in people.export_lines(store, user):
            click.echo(line)
            count += 1
        return count

    if not ask(question, **database):
        raise click.ClickException(f"nothing is stored of {one_line(user)}")


@users.command("erase")
@click.argument("user", type=UserName())
@click.option("--yes", is_flag=True, help="Do not ask.")
@question_options
def erase_user(*, user: str, yes: bool, as_json: bool, **database: Any) -> None:
    """Delete everything that is stored of USER, and end their sessions. This cannot be undone."""
    if not yes:
        click.confirm(f"Delete all conversations, memories and keys of {one_line(user)}?", abort=True, err=True)

    async def question(store: reports.Rows) -> people.ErasedReport:
        return await people.erase_user(store, user, operator())

    erased = ask(question, writes=True, **database)
    if as_json:
        print_json(erased)
        return
    counts = f"{erased.sessions} sessions, {erased.messages} messages and {erased.memories} memories"
    click.echo(f"{one_line(user)} is erased: {counts}.")
