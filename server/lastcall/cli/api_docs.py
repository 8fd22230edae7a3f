"""`lastcall api-docs`."""

from __future__ import annotations

import click

DOCUMENTS = ("openapi", "asyncapi")


@click.command("api-docs")
@click.argument("document", type=click.Choice(DOCUMENTS))
def api_docs(*, document: str) -> None:
    """Print the API description: openapi for the HTTP routes, asyncapi for the WebSocket events."""
    from ..web.app import api_document  # not at the top: Starlette is slow to import

    click.echo(api_document(document))
