"""`lastcall keys`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from ..auth.identity import Scope, canonical_user
from .options import limit_option, question_options
from .running import ask, operator
from .tables import Column, moment, one_line, print_json, print_limit, print_table

KEYS = 100


class Subject(click.ParamType[Any]):
    """A user id or the name of a backend."""

    name = "subject"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return canonical_user(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group("keys")
def keys() -> None:
    """Create, list and revoke API keys. Once there is one, every client needs a key."""


@keys.command("create")
@click.argument("subject", type=Subject())
@click.option(
    "--scope",
    type=click.Choice(["user", "service", "admin", "reader"]),
    default="user",
    show_default=True,
    help="user: for SUBJECT's own sessions. service: for a backend, which names the user of each session and creates"
    " client secrets for browsers. admin: a service that may also use the console, its API and /metrics. reader:"
    " for these only, and it changes nothing.",
)
@question_options
def create_key(*, subject: str, scope: str, as_json: bool, **database: Any) -> None:
    """Create a key for SUBJECT and print it. It is shown only once: the database stores its hash."""
    from ..auth import key_admin

    made = ask(
        lambda store: key_admin.create_key(store, subject, Scope(scope), operator()), **database, makes_data=True
    )
    if as_json:
        print_json(made)
        return
    click.echo(made.key)
    click.echo(f"lastcall: this key is shown only once; lastcall keys revoke {made.key_id} revokes it", err=True)


@keys.command("list")
@limit_option(KEYS)
@question_options
def list_keys(*, limit: int, as_json: bool, **database: Any) -> None:
    """List keys, newest first, including revoked ones."""
    from ..auth import key_admin

    found = ask(lambda store: key_admin.list_keys(store, limit), **database)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No keys: any client that can reach the server on loopback may use it.")
    else:
        print_table(_COLUMNS, [_cells(each) for each in found])
        print_limit(found, limit)


_COLUMNS = (
    Column("id"),
    Column("key"),
    Column("subject", whole=False),
    Column("scope"),
    Column("created (UTC)", below=1),
    Column("revoked (UTC)"),
    Column("sessions", "right"),
)


def _cells(each: Any) -> list[str]:
    times = (moment(each.created_at), moment(each.revoked_at))
    subject = one_line(each.subject)
    return [str(each.key_id), f"{each.prefix}…", subject, each.scope, *times, str(each.active_sessions)]


@keys.command("revoke")
@click.argument("id", type=click.UUID)
@question_options
def revoke_key(*, id: UUID, as_json: bool, **database: Any) -> None:
    """Revoke the key or client secret ID for good. Its sessions are closed within a second, on every server."""
    from ..auth import key_admin

    revoked = ask(lambda store: key_admin.revoke(store, id, operator()), writes=True, **database)
    if revoked is None:
        raise click.UsageError(f"There is no key {id}; lastcall keys list shows them.")
    if as_json:
        print_json(revoked)
        return
    sessions = "session" if revoked.closed_sessions == 1 else "sessions"
    click.echo(f"Revoked {id}; {revoked.closed_sessions} active {sessions} closed.")
