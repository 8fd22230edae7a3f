"""The chat page and its files."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

STATIC = Path(__file__).with_name("static")


async def chat_page(_request: Request) -> Response:
    """The chat page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")
