"""Parses a client's messages: each is an event, or a rejection that knows its `event_id`. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from .client_events import AUDIO_EVENTS, SUPPORTED_EVENTS, AnyClientEvent, EventRejected, SessionPatch, TooComplex
from .half_characters import without_half_characters
from .json_bounds import JsonBounds


class _Header(Struct):
    """The header of an event of any shape. As raw JSON, because a number in it may be too large to decode."""

    type: msgspec.Raw = msgspec.Raw(b"null")
    event_id: msgspec.Raw = msgspec.Raw(b"null")


_decode_event: Callable[[str], AnyClientEvent] = msgspec.json.Decoder(AnyClientEvent).decode
_decode_session = msgspec.json.Decoder(SessionPatch).decode
_decode_header: Callable[[str | bytes], _Header] = msgspec.json.Decoder(_Header).decode
_decode_text = msgspec.json.Decoder(str).decode
_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
NAME_CHARS_MAX = 100  # of an unknown field's name, in its rejection


def parse_event(message: str | bytes, bounds: JsonBounds) -> AnyClientEvent:
    """Parses one client event. Raises `EventRejected` for anything else, whatever the bytes are."""
    if isinstance(message, bytes):
        raise EventRejected("invalid_value", "Events must be sent as text frames, not as binary frames.")
    problem = bounds.problem(message)
    if problem is not None:
        raise TooComplex("invalid_value", problem, event_id=event_id_of(message))
    try:
        return _decode_event(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        whole = without_half_characters(message)
        if whole != message:
            return parse_event(whole, bounds)
        raise _rejection(message, error) from None


def parse_session(text: str | bytes) -> SessionPatch:
    """Parses the fields of a session that a client may set. Raises `EventRejected`, as for a `session.update`."""
    try:
        return _decode_session(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _misshapen(error, None, "session") from None


def event_id_of(message: str | bytes) -> str | None:
    """The event_id of a message that is not parsed any further; None where it has none."""
    try:
        return _text(_decode_header(message).event_id)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        whole = without_half_characters(message) if isinstance(message, str) else message
        return event_id_of(whole) if whole != message else None


def _rejection(message: str, error: Exception) -> EventRejected:
    try:
        header = _decode_header(message)
    except msgspec.ValidationError:
        return EventRejected("invalid_value", "An event must be a JSON object.")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as broken:
        return EventRejected("invalid_json", f"The message is not valid JSON: {broken}")
    event_id = _text(header.event_id)
    return _unknown_event(bytes(header.type), event_id) or _misshapen(error, event_id)


def _text(value: bytes | msgspec.Raw) -> str | None:
    """The value of a JSON string; None for other JSON."""
    try:
        return _decode_text(value)
    except msgspec.ValidationError:
        return None


def _unknown_event(kind: bytes, event_id: str | None) -> EventRejected | None:
    """The rejection of an event whose type is not supported; None where it is. kind: the type, as JSON."""
    if kind == b"null":
        return EventRejected("missing_required_parameter", "Missing required parameter: 'type'.", "type", event_id)
    name = _text(kind)
    if name in AUDIO_EVENTS:
        return _audio_event(name or "", event_id)
    if name in SUPPORTED_EVENTS:
        return None
    shown = kind.decode() if name is None else repr(name)
    supported = ", ".join(f"'{name}'" for name in SUPPORTED_EVENTS)
    message = f"Invalid value: {shown:.100}. Supported values are: {supported}."
    return EventRejected("invalid_value", message, "type", event_id)


def _audio_event(name: str, event_id: str | None) -> EventRejected:
    if name == "input_audio_buffer.commit":  # as the public API has it where nothing was appended
        message = "Error committing input audio buffer: it is empty, because this server handles text only, no audio."
        return EventRejected("input_audio_buffer_commit_empty", message, None, event_id)
    message = f"'{name}' is not supported: this server handles text only, no audio."
    return EventRejected("unsupported_event", message, "type", event_id)


def unknown_field(error: Exception, root: str = "") -> str | None:
    """The path of the field for which msgspec refused an object that may have no other fields; None for others."""
    where, unknown = _WHERE.search(str(error)), _UNKNOWN.fullmatch(_WHERE.sub("", str(error)))
    if unknown is None:
        return None
    return ".".join(each for each in (root, where["path"] if where else "", unknown[1][:NAME_CHARS_MAX]) if each)


def _misshapen(error: Exception, event_id: str | None, root: str = "") -> EventRejected:
    """The rejection of an event, or of a part of one, that does not have its shape. root: where that part belongs."""
    where = _WHERE.search(str(error))
    path = ".".join(each for each in (root, where["path"] if where else "") if each)
    text = _WHERE.sub("", str(error))
    if missing := _MISSING.match(text):
        param = f"{path}.{missing[1]}".lstrip(".")
        message = f"Missing required parameter: '{param}'."
        return EventRejected("missing_required_parameter", message, param, event_id)
    if (unknown := unknown_field(error, root)) is not None:
        return EventRejected("unknown_parameter", f"Unknown parameter: '{unknown}'.", unknown, event_id)
    return EventRejected("invalid_value", f"Invalid value at '{path}': {text:.200}.", path or None, event_id)
