"""`lastcall sessions show`: one session, with what was said and remembered in it, and what its answers took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ..kinds import SessionId
from ..options import limit_option, question_options
from ..running import ask
from ..tables import duration, moment, one_line, print_json, print_limit

if TYPE_CHECKING:
    from ...store.operators.acts import ClosingReport
    from ...store.operators.sessions import DetailsReport, ItemReport, MadeMemoryReport
    from ...store.operators.usage import ResponseReport
    from ...store.reports import Rows

ITEMS = 200


@dataclass(frozen=True, slots=True)
class SessionStory:
    """All that is stored of a session."""

    session: DetailsReport
    closing: ClosingReport | None
    items: list[ItemReport]
    responses: list[ResponseReport]
    memories: list[MadeMemoryReport]


@click.command("show")
@click.argument("session_id", type=SessionId())
@limit_option(ITEMS)
@question_options
def show_session(*, session_id: UUID, limit: int, as_json: bool, **database: Any) -> None:
    """Show the session SESSION_ID: what became of it, what was said in it and remembered, what its answers took.

    Tokens are those that the model reported.
    """

    from ...store.operators.acts import closing_of
    from ...store.operators.sessions import find_details, items_of, memories_of
    from ...store.operators.usage import responses_of

    async def question(store: Rows) -> SessionStory | None:
        session = await find_details(store, session_id)
        if session is None:
            return None
        closing = await closing_of(store, session_id, session.user_id)
        return SessionStory(
            session,
            closing,
            await items_of(store, session_id, limit),
            await responses_of(store, session_id, limit),
            await memories_of(store, session_id),
        )

    found = ask(question, **database)
    if found is None:
        raise click.UsageError(f"There is no session {session_id}; see lastcall sessions.")
    if as_json:
        print_json(found)
        return
    _print_facts(found)
    for item in found.items:
        _print_item(item)
    print_limit(found.items, limit)
    _print_answers(found.responses, limit)
    if found.memories:
        click.echo("\nRemembered:")
    for memory in found.memories:
        quote = f", from “{one_line(memory.quote)}”" if memory.quote else ""
        click.echo(f"  {memory.memory_id}  {memory.kind}: {one_line(memory.content)}{quote}")


def _print_facts(story: SessionStory) -> None:
    each, closing = story.session, story.closing
    end = "" if each.end_reason is None else f": {each.end_reason}, close code {each.close_code or 'none'}"
    lines = {
        "session": str(each.session_id),
        "conversation": str(each.conversation_id),
        "user": one_line(each.user_id),
        "state": each.state + end,
        "started": f"{moment(each.session_start)} UTC",
        "lasted": duration(each.duration_seconds) if each.duration_seconds is not None else "",
        "server": f"{each.hostname}, process {each.pid}" if each.hostname else "",
        "closed by": one_line(f"{closing.actor}: {closing.reason or ''}") if closing and closing.actor else "",
        "memory": each.memory_status + (f": {one_line(each.memory_error)}" if each.memory_error else ""),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<14}{value}")
    click.echo()


def _print_answers(responses: Sequence[ResponseReport], limit: int) -> None:
    if responses:
        click.echo("\nAnswers:")
    for each in responses:
        took = duration((each.ended_at - each.started_at).total_seconds())
        first = f" (first piece {duration((each.first_at - each.started_at).total_seconds())})" if each.first_at else ""
        outcome = each.outcome + (f": {one_line(each.reason)}" if each.reason else "")
        agent = one_line(each.agent if each.model is None else f"{each.agent}, model {each.model}")
        click.echo(f"  {moment(each.started_at)}  {took}{first}, {_tokens(each)}, {outcome}; {agent}")
    print_limit(responses, limit)


def _tokens(each: ResponseReport) -> str:
    if each.input_tokens is None and each.output_tokens is None:
        return "tokens not reported"
    counts = ["?" if count is None else str(count) for count in (each.input_tokens, each.output_tokens)]
    cached = f" ({each.cached_tokens} cached)" if each.cached_tokens is not None else ""
    return f"{counts[0]}{cached} + {counts[1]} tokens"


def _print_item(item: ItemReport) -> None:
    marks = [item.name or "", "" if item.status == "completed" else item.status, "deleted" if item.deleted_at else ""]
    notes = ", ".join(mark for mark in marks if mark)
    who = item.role + (f" ({notes})" if notes else "")
    click.echo(f"{moment(item.created_at)}  {who:<9}  {one_line(item.content)}")
