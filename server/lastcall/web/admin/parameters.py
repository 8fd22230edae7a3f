"""Parameters and bodies of requests to `/v1/admin/…`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import msgspec
from starlette.requests import Request

from ...auth.identity import canonical_user
from ...protocol.errors import RequestRefused
from ...protocol.ids import parse_public_id
from ...protocol.parsing import unknown_field
from ...store.operators.sessions import Cursor
from ..conversations import invalid_value

T = TypeVar("T")

NUMBER_DIGITS_MAX = 18  # fits a bigint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(r"(\d{1,18})_([0-9a-f]{32})", re.ASCII)
_MAX_MICROSECONDS = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def unix(moment: datetime | None) -> float | None:
    """A moment in Unix seconds."""
    return None if moment is None else moment.timestamp()


def cursor_text(start: datetime, session_id: UUID) -> str:
    """A place in a list of sessions."""
    return f"{(start - _EPOCH) // _MICROSECOND}_{session_id.hex}"


def cursor_of(request: Request) -> Cursor | None:
    """The place `after` which a page begins. Raises `RequestRefused`."""
    text = request.query_params.get("after")
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None or int(found[1]) > _MAX_MICROSECONDS:
        raise invalid_value("after must be the `next` of a page.", "after")
    return _EPOCH + int(found[1]) * _MICROSECOND, UUID(found[2])


def page_of(found: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Those that fit a page, where one more than `limit` was asked for; and its last one, where there are more."""
    return found[:limit], found[limit - 1] if len(found) > limit else None


def before_of(request: Request) -> int | None:
    """The number `before` which a page begins. Raises `RequestRefused`."""
    text = request.query_params.get("before")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX):
        raise invalid_value("before must be the `next` of a page.", "before")
    return int(text)


def session_id_of(request: Request) -> UUID:
    """The session that the path names. Raises `RequestRefused`."""
    try:
        return parse_public_id("sess", request.path_params["session_id"])
    except ValueError:
        raise no_session() from None


def no_session() -> RequestRefused:
    return RequestRefused("session_not_found", "There is no such session.")


def user_of_query(request: Request) -> str | None:
    """The user that is meant. Not `user`, by which a backend says for whom it asks. Raises `RequestRefused`."""
    text = request.query_params.get("user_id")
    return None if text is None else user_named(text, "user_id")


def user_named(text: str, param: str) -> str:
    """A user's name in its one form. Raises `RequestRefused`."""
    try:
        return canonical_user(text)
    except ValueError as error:
        raise invalid_value(str(error), param) from None


def text_of(request: Request, name: str, chars_max: int = 256) -> str | None:
    """A word of the query. Raises `RequestRefused`."""
    text = request.query_params.get(name)
    if text is not None and (not 1 <= len(text) <= chars_max or "\0" in text):
        raise invalid_value(f"{name} must have 1 to {chars_max} characters, none of them NUL.", name)
    return text


async def body_of(request: Request, type: type[T]) -> T:
    """The JSON of the request; nothing is `{}`. Raises `RequestRefused`."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=type)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if (name := unknown_field(error)) is not None:
            raise RequestRefused("unknown_parameter", f"Unknown parameter: '{name}'.", name) from None
        raise RequestRefused("invalid_value", f"Invalid body: {error}.") from None
