"""`lastcall webhooks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ..store.webhooks.endpoints import EVENTS, STATES, DeliveryReport, EndpointReport
from .options import limit_option, question_options
from .running import ask, operator
from .tables import UUID_CHARS, Column, moment, one_line, print_json, print_limit, print_table

if TYPE_CHECKING:
    from ..store import reports
    from ..store.webhooks.outbox import State
    from ..webhooks.adding import AddedEndpoint

DELIVERIES = 50
TEST_SECONDS = 15.0  # that a test is waited for: a try takes up to 10
LOOK_SECONDS = 0.2
EXIT_FAILED = 1


@click.group("webhooks")
def webhooks() -> None:
    """Tell other programs when sessions end and when memory is done: signed, and at least once."""


@webhooks.command("add")
@click.argument("url")
@click.option(
    "--events",
    type=click.Choice(EVENTS),
    multiple=True,
    default=EVENTS,
    help="What to send; may be repeated. Default: all.",
)
@click.option("--allow-http", is_flag=True, help="Allow http:// to another machine: what is sent can be read.")
@question_options
def add(*, url: str, events: tuple[str, ...], allow_http: bool, as_json: bool, **database: Any) -> None:
    """Send events to URL from now on, and print the secret that signs them. It is shown only once."""
    from ..webhooks.adding import EndpointRefused, add_webhook

    async def question(store: reports.Rows) -> AddedEndpoint | EndpointRefused:
        try:
            return await add_webhook(store, url, operator(), events=events, allow_http=allow_http)
        except EndpointRefused as refused:
            return refused

    added = ask(question, makes_data=True, **database)
    if isinstance(added, EndpointRefused):
        hint = " (--allow-http)" if "explicitly" in str(added) else ""
        raise click.ClickException(f"{added}{hint}")
    if as_json:
        print_json(added)
        return
    click.echo(added.secret)
    click.echo(f"lastcall: shown only once; lastcall webhooks test {added.endpoint_id} tries it", err=True)


@webhooks.command("list")
@question_options
def list_webhooks(*, as_json: bool, **database: Any) -> None:
    """List endpoints, and how many deliveries wait or have failed."""
    from ..store.webhooks.endpoints import list_endpoints

    found = ask(list_endpoints, **database)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No webhooks.")
    else:
        print_table(_ENDPOINT_COLUMNS, [_endpoint_cells(each) for each in found])


_ENDPOINT_COLUMNS = (
    Column("id", below=1, least=UUID_CHARS),
    Column("url", whole=False),
    Column("events", below=1, whole=False),
    Column("created (UTC)"),
    Column("pending", "right", below=1),
    Column("failed", "right"),
)


def _endpoint_cells(each: EndpointReport) -> list[str]:
    counts = (str(each.pending), str(each.failed))
    return [str(each.endpoint_id), one_line(each.url), " ".join(each.events), moment(each.created_at), *counts]


@webhooks.command("remove")
@click.argument("id", type=click.UUID)
@question_options
def remove(*, id: UUID, as_json: bool, **database: Any) -> None:
    """Send nothing more to the endpoint ID. What waits for it is deleted."""
    from ..store.webhooks.endpoints import remove_endpoint

    async def question(store: reports.Rows) -> bool:
        return await remove_endpoint(store, id, operator())

    if not ask(question, writes=True, **database):
        raise _unknown(id)
    if as_json:
        print_json({"removed": id})
    else:
        click.echo(f"Removed {id}.")


@webhooks.command("test")
@click.argument("id", type=click.UUID)
@question_options
def test(*, id: UUID, as_json: bool, **database: Any) -> int:
    """Have a running server send an event webhook.test to the endpoint ID, and say what came of it.

    The exit code is 1 where it was not accepted, or no server took it up.
    """

    async def question(store: reports.Rows) -> DeliveryReport | None:
        from ..store.webhooks.endpoints import queue_test

        queued = await queue_test(store, id, operator())
        return None if queued is None else await _first_try(store, queued.delivery_id)

    tried = ask(question, writes=True, **database)
    if tried is None:
        raise _unknown(id)
    if as_json:
        print_json(tried)
    else:
        click.echo(_told(tried))
    return 0 if tried.state == "delivered" else EXIT_FAILED


async def _first_try(store: reports.Rows, delivery_id: int) -> DeliveryReport | None:
    """The delivery once something has come of it, or after a while; None: its endpoint was removed meanwhile."""
    import trio

    from ..store.webhooks.endpoints import list_deliveries

    until = trio.current_time() + TEST_SECONDS
    while True:
        found = await list_deliveries(store, 1, delivery_id=delivery_id)
        if not found:
            return None
        if found[0].state != "pending" or found[0].error or trio.current_time() >= until:
            return found[0]
        await trio.sleep(LOOK_SECONDS)


def _told(tried: DeliveryReport) -> str:
    if tried.state == "delivered":
        return f"Delivered: HTTP {tried.status}."
    if tried.error:
        return f"Not delivered: {one_line(tried.error)}. It will be tried again."
    return f"No server has sent it within {TEST_SECONDS:g} s; it waits until one runs."


@webhooks.command("deliveries")
@click.option("--endpoint", "endpoint_id", type=click.UUID, help="Only of this endpoint.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@limit_option(DELIVERIES)
@question_options
def deliveries(*, endpoint_id: UUID | None, state: State | None, limit: int, as_json: bool, **database: Any) -> None:
    """List deliveries, newest first. Those that succeeded are kept for 3 days, those that failed for 30."""

    async def question(store: reports.Rows) -> Sequence[DeliveryReport]:
        from ..store.webhooks.endpoints import list_deliveries

        return await list_deliveries(store, limit, endpoint_id=endpoint_id, state=state)

    found = ask(question, **database)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No deliveries.")
    else:
        print_table(_DELIVERY_COLUMNS, [_delivery_cells(each) for each in found])
        print_limit(found, limit)


_DELIVERY_COLUMNS = (
    Column("id", "right"),
    Column("event", below=1),
    Column("created (UTC)"),
    Column("session", below=1, least=UUID_CHARS + 2),
    Column("url", whole=False),
    Column("state", below=1),
    Column("tries", "right"),
    Column("next (UTC)", below=1),
    Column("error", whole=False),
)


def _delivery_cells(each: DeliveryReport) -> list[str]:
    due = "at once" if each.due_at is None else moment(each.due_at)
    return [
        str(each.delivery_id),
        each.event,
        moment(each.created_at),
        str(each.session_id or "-"),
        one_line(each.url),
        each.state,
        str(each.attempts),
        due if each.state == "pending" else "-",
        one_line(each.error or "-"),
    ]


@webhooks.command("retry")
@click.argument("delivery", required=False, type=click.IntRange(min=1))
@click.option("--endpoint", "endpoint_id", type=click.UUID, help="Only of this endpoint.")
@question_options
def retry(*, delivery: int | None, endpoint_id: UUID | None, as_json: bool, **database: Any) -> None:
    """Send what has failed, or waits to be tried again, at once: DELIVERY, or all of them."""

    async def question(store: reports.Rows) -> int:
        from ..store.webhooks.endpoints import RETRIED_MAX, retry_deliveries

        count = portion = await retry_deliveries(store, operator(), delivery_id=delivery, endpoint_id=endpoint_id)
        while portion == RETRIED_MAX:  # what is due at once is not retried again, so this comes to an end
            portion = await retry_deliveries(store, operator(), delivery_id=delivery, endpoint_id=endpoint_id)
            count += portion
        return count

    count = ask(question, writes=True, **database)
    if as_json:
        print_json({"retried": count})
    else:
        click.echo(f"{count} {'delivery' if count == 1 else 'deliveries'} will be sent again.")


def _unknown(id: UUID) -> click.UsageError:
    return click.UsageError(f"There is no webhook {id}; lastcall webhooks list shows them.")
