"""`lastcall keys`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import click

from ..auth.identity import Scope, canonical_user
from .kinds import SERVER_URL, Age, ServerUrl
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


@keys.command("link")
@click.argument("user", type=Subject())
@click.option("--url", type=ServerUrl(), default=SERVER_URL, show_default=True, help="The page, as USER reaches it.")
@click.option("--within", type=Age(), default="1d", show_default=True, help="Until when the link must be used.")
@question_options
def create_link(*, user: str, url: str, within: float, as_json: bool, **database: Any) -> None:
    """Print a link with which USER signs in on the page, once, with one browser.

    Send it to nobody else. What is behind the # is a secret, which browsers send to no server; the page trades it for a
    cookie. The link is shown only once: the database stores its hash.
    """
    from ..auth import key_admin

    if within == 0:
        raise click.UsageError("--within must be longer than that, for example 1d.")
    made = ask(lambda store: key_admin.create_link(store, user, within, operator()), **database, makes_data=True)
    link = f"{url.rstrip('/')}/#{made.secret}"
    if as_json:
        print_json(LinkReport(made.link_id, made.user, link, made.seconds))
        return
    click.echo(link)
    click.echo(f"lastcall: shown only once, and of use once; lastcall keys revoke {made.link_id} revokes it", err=True)


@keys.command("sign-out")
@click.argument("user", type=Subject())
@question_options
def sign_out(*, user: str, as_json: bool, **database: Any) -> None:
    """Sign USER out of all browsers, whose sessions end, and revoke the user's links."""
    from ..auth import key_admin

    done = ask(lambda store: key_admin.sign_out(store, user, operator()), writes=True, **database)
    if as_json:
        print_json(done)
        return
    click.echo(
        f"Signed {one_line(user)} out of {_counted(done.browsers, 'browser')}; {_counted(done.links, 'link')} revoked,"
        f" {_counted(done.closed_sessions, 'active session')} closed."
    )


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A link. seconds: until it expires, where nobody uses it."""

    link_id: UUID
    user: str
    link: str
    seconds: float


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@keys.command("revoke")
@click.argument("id", type=click.UUID)
@question_options
def revoke_key(*, id: UUID, as_json: bool, **database: Any) -> None:
    """Revoke the key, client secret or link ID for good. Its sessions are closed within a second, on every server.

    A link takes the browser that signed in with it along.
    """
    from ..auth import key_admin

    revoked = ask(lambda store: key_admin.revoke(store, id, operator()), writes=True, **database)
    if revoked is None:
        raise click.UsageError(f"There is no key {id}; lastcall keys list shows them.")
    if as_json:
        print_json(revoked)
        return
    click.echo(f"Revoked {id}; {_counted(revoked.closed_sessions, 'active session')} closed.")
