"""`docs/protocol.md` matches the code: events, codes, limits and parameters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lastcall.config import Settings
from lastcall.conversation.responses.output import OUTPUT_ITEMS_MAX
from lastcall.conversation.responses.responder import OUT_OF_BAND_MAX
from lastcall.conversation.validation import (
    ID_CHARS_MAX,
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    TOOL_NAME_CHARS_MAX,
)
from lastcall.protocol.client_events import SUPPORTED_EVENTS
from lastcall.protocol.endpoint import REPLAY_ITEMS_MAX
from lastcall.realtime.handshake import BAD_KEY, BETA_CLIENT
from lastcall.sessions.close_codes import CLOSE_CODES
from lastcall.web.conversations import PAGE_MAX
from lastcall.web.schemas import SERVER_EVENTS, event_type

from tests.support.docs_tables import error_codes, table_in

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/protocol.md").read_text()
WORDS = set(re.findall(r"`([^`\s]+)`", PAGE))


def test_it_names_every_event() -> None:
    assert {*SUPPORTED_EVENTS, *(event_type(event) for event in SERVER_EVENTS)} - WORDS == set()


def test_its_error_codes_are_those_of_the_code() -> None:
    """Where this fails, `python -m tests.support.docs_tables` writes the table anew."""
    assert table_in("protocol.md", "error codes") == error_codes()


def test_it_names_every_close_code() -> None:
    table = PAGE.partition("## Close codes")[2].partition("##")[0]
    named = {int(code) for code in re.findall(r"^\| (\d{4}) \|", table, re.MULTILINE)}
    assert named == {*CLOSE_CODES.values(), 1013, BAD_KEY, BETA_CLIENT}


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
