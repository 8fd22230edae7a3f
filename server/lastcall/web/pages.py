"""The chat page, the console and their files, read once: a request must not wait for a disk or for a thread."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from html import escape
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .access import services_of

STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it was at the start."""

    content: bytes
    media_type: str
    etag: str
    last_modified: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the client has it."""
        headers = {"etag": self.etag, "last-modified": self.last_modified}
        if self._known(request):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)

    def _known(self, request: Request) -> bool:
        etags = request.headers.get("if-none-match")
        if etags is None:
            return request.headers.get("if-modified-since") == self.last_modified
        known = [each.strip().removeprefix("W/") for each in etags.split(",")]
        return self.etag in known or "*" in known


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return PageFile(content, media_type, _etag(content), formatdate(path.stat().st_mtime, usegmt=True))


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


FILES: Mapping[str, PageFile] = {path.name: _read(path) for path in STATIC.iterdir() if path.is_file()}


async def chat_page(request: Request) -> Response:
    """The chat page."""
    return FILES["index.html"].answer(request)


def embedded_page(origins: Collection[str]) -> PageFile:
    """The chat page for frames of other sites, and for nobody else. origins: whose pages may send it a secret."""
    shown = escape(" ".join(sorted(origins)))
    content = FILES["index.html"].content.replace(b"<html ", f'<html data-embed="{shown}" '.encode(), 1)
    return replace(FILES["index.html"], content=content, etag=_etag(content))


async def embed_page(request: Request) -> Response:
    """The chat page, for a frame of another site; not found where none may show it."""
    origins = services_of(request).settings.embed_origin
    if not origins:
        raise HTTPException(404)
    return embedded_page(origins).answer(request)


async def console_page(request: Request) -> Response:
    """The console."""
    return FILES["console.html"].answer(request)


async def page_file(request: Request) -> Response:
    """The pages' files."""
    try:
        return FILES[request.path_params["path"]].answer(request)
    except KeyError:
        raise HTTPException(404) from None
