"""The limits: one record for each makes the table in the docs, the metric's label and the help texts."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from ..config import Settings

# Defaults of limits whose setting is None. This machine's own addresses have no limit then: a local user can do worse,
# and behind a local proxy all clients share one address.
ADDRESS_CONNECTIONS = 256
ADDRESS_CONNECTIONS_PER_SECOND = 20.0
ADDRESS_REQUESTS_PER_SECOND = 50.0
ADDRESS_HTTP_CONNECTIONS = 32  # a browser opens six

# The same for users with tokens. A key may belong to a backend that serves all users, so it has no default limit.
USER_CONNECTIONS = 256
USER_CONNECTIONS_PER_SECOND = 20.0

MEMORY_SHARE = 0.8  # of the memory of the machine or its control group
SPARE_SOCKETS = 512  # beyond the sessions: for handshakes and HTTP requests, of which the gate admits half as many

CALLER_BURST_SECONDS = 10.0  # the burst of an address, a key or a user, in seconds of its rate
EVENT_BURST_SECONDS = 2.0  # the burst of a session's events, in seconds of its rate
EVENT_TOKEN_BYTES = 16_384  # an event costs one more token for each of these
FLOODING_EVENTS = 250  # refused without a pause, or a whole burst where that is fewer
FRAMES_PER_EVENT = 4  # frames are paced by the rate of events: room for fragments, pings and pongs

_ADDRESSES = "no limit for this machine's own addresses"
_KEYS = "no limit for a key"
_CALLER_BURST = f"{CALLER_BURST_SECONDS:g} seconds' worth at once"


_UNITS = {
    "seconds": "s",
    "events": "events",
    "items": "items",
    "chars": "characters",
    "values": "JSON values",
    "depth": "levels",
}
_MIB = 1_048_576


def _default(setting: str) -> str:
    value = getattr(Settings(), setting)
    unit = next((word for word in _UNITS if word in setting), None)
    if "bytes" in setting:
        return f"{value / _MIB:g} MiB"
    number = f"{value:g}" if isinstance(value, float) else f"{value:,}"
    return f"{number} {_UNITS[unit]}" if unit else number


class Limit(StrEnum):
    """What can refuse, delay or end something; the value is the label of `lastcall_limits_refused_total`.

    settings: those that set the limit. default: as text; empty where the defaults of the settings say it all.
    beyond: what happens beyond the limit, in Markdown.
    """

    settings: tuple[str, ...]
    default: str
    beyond: str

    def __new__(cls, label: str, settings: str, beyond: str, default: str = "") -> Self:
        limit = str.__new__(cls, label)
        limit._value_ = label
        limit.settings = tuple(settings.split())
        limit.default = default or "; ".join(_default(setting) for setting in limit.settings)
        limit.beyond = beyond
        return limit

    CONNECTIONS = "connections", "connections_max", "new sessions get close code 1013"
    MEMORY = (
        "memory",
        "memory_mib_max",
        "new sessions get close code 1013; large ones get error `conversation_full`, then `overloaded` and 1013",
        f"{MEMORY_SHARE:.0%} of the memory available",
    )
    SOCKETS = (
        "sockets",
        "connections_max",
        "the socket is closed",
        f"{SPARE_SOCKETS} more than sessions, or fewer by `ulimit -n`",
    )
    ADDRESS_CONNECTIONS = (
        "address_connections",
        "address_connections_max",
        "HTTP 429 with Retry-After, before anything is read",
        f"{ADDRESS_CONNECTIONS}; {_ADDRESSES}",
    )
    ADDRESS_RATE = (
        "address_rate",
        "address_connections_per_second",
        "HTTP 429 with Retry-After, before anything is read",
        f"{ADDRESS_CONNECTIONS_PER_SECOND:g} a second, {_CALLER_BURST}; {_ADDRESSES}",
    )
    KEY_CONNECTIONS = (
        "key_connections",
        "key_connections_max",
        "HTTP 429 with Retry-After instead of the upgrade",
        f"{USER_CONNECTIONS} for a user with tokens; {_KEYS}",
    )
    KEY_RATE = (
        "key_rate",
        "key_connections_per_second",
        "HTTP 429 with Retry-After instead of the upgrade",
        f"{USER_CONNECTIONS_PER_SECOND:g} a second for a user with tokens, {_CALLER_BURST}; {_KEYS}",
    )
    HTTP_CONNECTIONS = "http_connections", "http_connections_max", "HTTP 503 with Retry-After"
    HTTP_CONNECTIONS_SHARE = (
        "http_connections_share",
        "address_http_connections_max",
        "HTTP 429 with Retry-After",
        f"{ADDRESS_HTTP_CONNECTIONS} for one address; {_ADDRESSES}",
    )
    HTTP_RATE = (
        "http_rate",
        "address_requests_per_second",
        "HTTP 429 with Retry-After, and the connection is closed",
        f"{ADDRESS_REQUESTS_PER_SECOND:g} a second, {_CALLER_BURST}; {_ADDRESSES}",
    )
    HANDSHAKE_TIME = "handshake_time", "handshake_seconds", "the socket is closed"
    SESSION_TIME = (
        "session_time",
        "session_seconds",
        "error `session_expired`, then close code 1001",
        f"{Settings().session_seconds / 3600:g} hours; `session.expires_at` says when",
    )
    IDLE_TIME = "idle_time", "idle_seconds", "error `session_idle`, then close code 1001", "none"
    EVENT_RATE = (
        "event_rate",
        "events_per_second",
        "error `rate_limit_exceeded`",
        f"{Settings().events_per_second:g} a second, {EVENT_BURST_SECONDS:g} seconds' worth at once",
    )
    FLOODING = (
        "flooding",
        "events_per_second",
        "close code 1008",
        f"{FLOODING_EVENTS} events refused for their rate, without a pause",
    )
    FRAME_RATE = (
        "frame_rate",
        "events_per_second",
        "the socket is read more slowly",
        f"{FRAMES_PER_EVENT} frames for each event of the rate",
    )
    MESSAGE_BYTES = "message_bytes", "message_bytes_max", "close code 1009"
    JSON_SHAPE = "json_shape", "json_values_max json_depth_max", "error `invalid_value`"
    INBOX = "inbox", "inbox_events_max inbox_bytes_max", "error `too_many_events`"
    ITEMS = "items", "items_max conversation_chars_max", "error `conversation_full`"
    CONTEXT = (
        "context",
        "context_chars_max",
        "the agent gets the newest items and those of role `system`; no tool's output without its call",
    )
    SLOW_READER = "slow_reader", "send_seconds outbox_bytes_max", "close code 1008"


def beyond(setting: str) -> str:
    """What happens beyond the limit of a setting, as a plain sentence for `--help`; empty where it sets no limit."""
    texts = [limit.beyond for limit in Limit if setting in limit.settings]
    return f"Beyond it: {texts[0].replace('`', '')}." if texts else ""
