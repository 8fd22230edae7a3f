"""Kinds of values that options take: what they accept, and the mend that their errors name."""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import click

from ..auth.identity import canonical_user
from ..auth.origins import origin_of
from ..auth.proxies import network_of
from ..protocol.ids import parse_public_id

DAYS_MAX = 36_500
SERVER_URL = "http://127.0.0.1:8000"  # of a server with the default settings

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Seconds(click.FloatRange):
    """A finite number of seconds, hours or days; click's own range accepts nan and inf."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Age(click.ParamType[Any]):
    """A duration like 90s, 15m, 24h, 7d or 2w, converted to seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", str(value).strip(), re.ASCII)
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else math.inf
        if seconds > DAYS_MAX * _UNIT_SECONDS["d"]:
            self.fail(f"{value!r} is not like 90s, 15m, 24h, 7d or 2w.", param, ctx)
        return seconds


class Day(click.ParamType[Any]):
    """A day in UTC, like 2026-01-31; or an age like 30d, which is the day so long ago."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        text = str(value).strip()
        try:
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
                return date.fromisoformat(text)
            return (datetime.now(UTC) - timedelta(seconds=Age().convert(text, param, ctx))).date()
        except (ValueError, OverflowError, click.BadParameter):
            self.fail(f"{value!r} is neither a day like 2026-01-31 nor an age like 30d.", param, ctx)


class DatabaseUrl(click.ParamType[Any]):
    """A connection string as psql takes it. Its errors never quote the value, which may hold a password."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..store.address import BadAddress, read_address

        try:
            read_address(str(value), os.environ)
        except BadAddress as error:
            self.fail(f"{error}.", param, ctx)
        return str(value)


class Origin(click.ParamType[Any]):
    """Scheme, host and port of a page, as browsers send them."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return origin_of(str(value))
        except ValueError:
            self.fail(f"{value!r} is not like https://chat.example or http://localhost:3000.", param, ctx)


class ProxyNetwork(click.ParamType[Any]):
    """The address of a proxy, or a network of them."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(network_of(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class UserName(click.ParamType[Any]):
    """A user whose rows are asked for, in the one form in which names are stored.

    A name that could not be given today is looked up as it is: imported rows may have it.
    """

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return canonical_user(str(value))
        except ValueError:
            return str(value)


class SessionId(click.ParamType[Any]):
    """The id of a session: as tables show it, or as clients do."""

    name = "session_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return parse_public_id("sess", str(value))
        except ValueError:
            self.fail(f"{value!r} is not the id of a session.", param, ctx)


class ServerUrl(click.ParamType[Any]):
    """The address of a server, as `lastcall serve` prints it."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(str(value))
            known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            known = False
        if not known:
            self.fail(f"{value!r} is not like {SERVER_URL} or https://chat.example.", param, ctx)
        return str(value)
