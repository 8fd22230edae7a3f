"""Checks an opening handshake: the path, the query and the subprotocols. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl
from uuid import UUID

from msgspec import Struct

from ..agents.trace_context import TRACEPARENT
from ..auth.identity import SUBPROTOCOL, Presented
from ..auth.proxies import RequestClient, sign_of_proxy
from ..protocol.endpoint import AZURE_BETA_PATH, AZURE_PATH, MODEL_CHARS_MAX, PATH, REPLAY_ITEMS_MAX
from ..protocol.errors import RequestRefused
from ..protocol.ids import parse_public_id
from ..secret_prefixes import API_KEY

PATHS = (PATH, AZURE_PATH, AZURE_BETA_PATH)
BETA_HEADER, BETA_VALUE = b"openai-beta", "realtime=v1"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


class Admission(Struct, frozen=True):
    """What a valid handshake asks for.

    conversation_id: the one to resume; None for a new one. replay: how many of its newest items to send again.
    beta: why a client of the retired beta is refused, on its open socket as by the public API; None for others.
    """

    presented: Presented
    conversation_id: UUID | None
    model: str
    subprotocol: str | None
    replay: int = REPLAY_ITEMS_MAX
    beta: RequestRefused | None = None

    @property
    def traceparent(self) -> str | None:
        """The trace to which the client says that the session belongs; not checked."""
        return self.presented.headers.get(TRACEPARENT)


def admit(
    target: str,
    host: str,
    headers: Sequence[tuple[bytes, bytes]],
    subprotocols: Sequence[str],
    client: RequestClient = RequestClient(""),  # noqa: B008 - immutable
) -> Admission:
    """Parses a handshake; `auth.authenticator` finds out whose it is. Raises `RequestRefused`.

    target: of the request line. headers: with names in lower case. subprotocols: those offered.
    client: who connects.
    """
    path, _, query_text = target.partition("?")
    # Where a header is repeated the first one counts, as over HTTP.
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    query = dict(parse_qsl(query_text, keep_blank_values=True))  # of a repeated key the last value counts
    if path not in PATHS:
        raise RequestRefused("not_found", f"WebSockets are served at {PATH} and {AZURE_PATH} only.")
    if "call_id" in query or query.get("intent") == "transcription":
        raise RequestRefused("invalid_value", "Calls and transcription are not supported: this server is text only.")
    try:
        conversation = query.get("conversation")
        conversation_id = parse_public_id("conv", conversation) if conversation else None
    except ValueError:
        message = "conversation must be conv_ and 32 hex digits."
        raise RequestRefused("invalid_value", message, "conversation") from None
    model = (query.get("model") or query.get("deployment") or "lastcall")[:MODEL_CHARS_MAX]
    # Where a client offers subprotocols and gets none, it closes; so one of the beta gets its own to hear why.
    subprotocol = next((each for each in (SUBPROTOCOL, BETA_SUBPROTOCOL) if each in subprotocols), None)
    # Not at the public API's path: whoever can do without keys in addresses, which proxies log, should.
    query_key = query.pop(API_KEY, None)
    presented = Presented(
        fields,
        query,
        client.host or host,
        subprotocols,
        None if path == PATH else query_key,
        address=client.address,
        scheme=client.scheme,
        sign_of_proxy=sign_of_proxy(name for name, _ in headers),
    )
    beta = _beta(path, headers, subprotocols)
    return Admission(presented, conversation_id, model, subprotocol, _replay_of(query), beta)


def _beta(path: str, headers: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]) -> RequestRefused | None:
    """The refusal of a client whose events have the shapes of the beta; None for others."""
    values = [value.decode("latin-1") for name, value in headers if name == BETA_HEADER]
    wanted = {each.strip().lower() for value in values for each in value.split(",")}
    if path == AZURE_BETA_PATH:
        message = f"The Realtime Beta API is no longer supported. Please use {AZURE_PATH} for the GA API."
    elif BETA_VALUE in wanted:
        message = (
            f"The Realtime Beta API is no longer supported. Please use {path} for the GA API, without OpenAI-Beta."
        )
    elif BETA_SUBPROTOCOL in subprotocols:
        message = (
            "The Realtime Beta API is no longer supported."
            f" Please use {path} for the GA API, without the subprotocol {BETA_SUBPROTOCOL}."
        )
    else:
        return None
    return RequestRefused("beta_api_shape_disabled", message)


def _replay_of(query: Mapping[str, str]) -> int:
    text = query.get("replay")
    if text is None:
        return REPLAY_ITEMS_MAX
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) > REPLAY_ITEMS_MAX:
        raise RequestRefused("invalid_value", f"replay must be a number from 0 to {REPLAY_ITEMS_MAX}.", "replay")
    return int(text)
