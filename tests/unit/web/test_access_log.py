"""A request in the access log, whatever becomes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from lastcall import logs
from lastcall.auth.proxies import TrustedProxies
from lastcall.cli.serve import level_of
from lastcall.config import Settings
from lastcall.web.operators.access_log import AccessLog
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

SERVICES = SimpleNamespace(gate=SimpleNamespace(proxies=TrustedProxies(())))
APP = SimpleNamespace(routes=(), state=SimpleNamespace(services=SERVICES))
SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": (), "client": ("192.0.2.1", 4), "app": APP}


@pytest.fixture(autouse=True)
def logs_all(quiet_logs: None) -> None:
    logs.configure(json_logs=False, level="info")


async def nothing(*_: Any) -> Any:
    raise AssertionError


async def test_a_request_that_is_cut_short_has_no_status(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    with capture_logs() as lines, trio.move_on_after(2.5):
        await AccessLog(hang)(SCOPE, nothing, nothing)
    (line,) = lines
    assert (line["status"], line["seconds"], line["address"]) == (None, 2.5, "192.0.2.1")


async def test_what_an_application_raises_is_passed_on() -> None:
    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    with capture_logs() as lines, pytest.raises(LookupError):
        await AccessLog(crash)(SCOPE, nothing, nothing)
    assert [line["event"] for line in lines] == ["http_request"]


def test_whoever_asks_for_it_sees_it() -> None:
    assert level_of(Settings(access_log=True)) == "info"
    assert level_of(Settings(access_log=True, log_level="error")) == "error"
    assert level_of(Settings()) is None
