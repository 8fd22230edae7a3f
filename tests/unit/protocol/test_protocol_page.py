"""`docs/protocol.md` says what the code does: events, codes, limits and parameters."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import lastcall
import pytest
from lastcall.config import Settings
from lastcall.conversation.response import OUTPUT_ITEMS_MAX
from lastcall.conversation.responses import OUT_OF_BAND_MAX
from lastcall.conversation.validation import (
    ID_CHARS_MAX,
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    TOOL_NAME_CHARS_MAX,
)
from lastcall.protocol.client_events import SUPPORTED_EVENTS
from lastcall.protocol.endpoint import REPLAY_ITEMS_MAX
from lastcall.realtime.handshake import BAD_KEY
from lastcall.sessions.session import CLOSE_CODES
from lastcall.web.conversations import PAGE_MAX
from lastcall.web.schemas import SERVER_EVENTS, event_type

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/protocol.md").read_text()
WORDS = set(re.findall(r"`([^`\s]+)`", PAGE))
CODE = re.compile(r"[a-z]+(_[a-z]+)+")
REFUSING = {"ErrorDetail", "RequestRefused", "AgentFailed", "_fail", "_refuse", "_refusal", "refusal", "error_response"}
NOT_FOR_CLIENTS = {"memory_unreadable"}  # of the making of memory


def codes_of_errors() -> set[str]:
    """The codes in the calls by which the server's code refuses something."""
    found = set()
    for source in Path(lastcall.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in REFUSING:
                values = [*node.args, *(each.value for each in node.keywords if each.arg == "code")]
                texts = [each.value for each in values if isinstance(each, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str) and CODE.fullmatch(text)}
    return found - {"server_error", "invalid_request_error"} - NOT_FOR_CLIENTS


def test_it_names_every_event() -> None:
    assert {*SUPPORTED_EVENTS, *(event_type(event) for event in SERVER_EVENTS)} - WORDS == set()


def test_it_names_every_error_code() -> None:
    codes = {code for code in codes_of_errors() if not code.startswith("upstream_")}
    assert {"invalid_value", "item_already_exists", "agent_error", "conversation_not_found"} <= codes
    assert codes - WORDS == set()


def test_it_names_every_close_code() -> None:
    table = PAGE.partition("## Close codes")[2].partition("##")[0]
    named = {int(code) for code in re.findall(r"^\| (\d{4}) \|", table, re.MULTILINE)}
    assert named == {*CLOSE_CODES.values(), 1013, BAD_KEY}


@pytest.mark.parametrize(
    "limit",
    [
        Settings().message_bytes_max,
        Settings().inbox_events_max,
        Settings().items_max,
        Settings().reply_chars_max,
        Settings().reply_seconds,
        Settings().ping_interval,
        Settings().outbox_bytes_max,
        Settings().send_seconds,
        Settings().connections_max,
        Settings().history_items_max,
        ID_CHARS_MAX,
        TOOL_NAME_CHARS_MAX,
        OUT_OF_BAND_MAX,
        OUTPUT_ITEMS_MAX,
        REPLAY_ITEMS_MAX,
        PAGE_MAX,
        METADATA_PAIRS_MAX,
        METADATA_KEY_CHARS_MAX,
        METADATA_VALUE_CHARS_MAX,
    ],
)
def test_it_names_every_limit(limit: float) -> None:
    assert re.search(rf"\b{limit:,.0f}\b", PAGE)
