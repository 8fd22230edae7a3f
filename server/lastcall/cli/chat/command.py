"""`lastcall chat`."""

from __future__ import annotations

import click

from ..kinds import SERVER_URL, ServerUrl
from ..running import login_name, run_logged

EXIT_UNANSWERED = 1


@click.command
@click.argument("text", nargs=-1)
@click.option(
    "--url",
    type=ServerUrl(),
    default=SERVER_URL,
    envvar="LASTCALL_CHAT_URL",
    show_default=True,
    show_envvar=True,
    help="The server.",
)
@click.option("--user", metavar="NAME", help="Who you are; default: your name on this machine, or who the key says.")
@click.option("--key", envvar="LASTCALL_CHAT_KEY", show_envvar=True, metavar="KEY",
              help="An API key or client secret, where the server wants one.")  # fmt: skip
@click.option("--conversation", metavar="ID", help="Go on with this conversation.")
@click.option("--model", default="lastcall", show_default=True, help="What is sent as the model.")
@click.pass_context
def chat(
    context: click.Context,
    *,
    text: tuple[str, ...],
    url: str,
    user: str | None,
    key: str | None,
    conversation: str | None,
    model: str,
) -> None:
    """Talk to the agent of a running server.

    With TEXT, one turn. Otherwise each line is a turn, of a terminal, pipe or file. When the connection breaks, the
    conversation goes on in another one.

    Exits with 1 if something was not answered.
    """
    from .turns import talk_to
    from .wire import Address

    address = Address(url, model, key, user or (None if key else login_name()))
    answered = run_logged(talk_to, address, " ".join(text) or None, conversation)
    context.exit(0 if answered else EXIT_UNANSWERED)
