"""`lastcall api-docs`."""

from __future__ import annotations

import click

DOCUMENTS = ("openapi", "asyncapi")


@click.command("api-docs")
@click.argument("document", type=click.Choice(DOCUMENTS))
def api_docs(*, document: str) -> None:
    """Print a description of the API for machines: of the HTTP routes, or of the WebSocket's events."""
    from ..web.app import api_document  # here, because Starlette takes a while to load

    click.echo(api_document(document))
