"""Traces of a server process, as a collector gets them."""

from __future__ import annotations

import os
import sys
import time

import trio
from trio_websocket import open_websocket_url

from tests.support.clients import Client, connect
from tests.support.lastcall_command import process
from tests.support.processes import run_server
from tests.support.sloppy_endpoint import Response, chunk_of, event, sloppy_endpoint
from tests.support.trace_collector import Collector, trace_collector

WITHIN_SECONDS = 60
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
FINE = Response(event(chunk_of({"content": "Fine."})) + event(chunk_of({}, finish="stop")) + b"data: [DONE]\n\n")
DRAIN_SECONDS = 4.0


def exporting_to(collector: Collector, **more: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**others, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


async def test_a_trace_goes_from_the_client_through_the_turn_to_the_model(database_url: str) -> None:
    """What waits is exported by the shutdown: the SDK itself would do so every five seconds."""
    async with sloppy_endpoint(lambda _: FINE) as endpoint:
        arguments = ("--agent", "openai", "--agent-url", endpoint.url, "--model", "small", "--traces")
        with trace_collector() as collector, trio.fail_after(WITHIN_SECONDS):
            environment = exporting_to(collector, OTEL_BSP_SCHEDULE_DELAY="3600000")
            start = run_server("--database-url", database_url, *arguments, env=environment)
            with start as server:
                address = f"ws{server.url.removeprefix('http')}/v1/realtime?user=ada"
                async with open_websocket_url(address, extra_headers=[(b"traceparent", PARENT.encode())]) as socket:
                    client = Client(socket, None)  # type: ignore[arg-type]
                    await client.ask("How are you?")
                log = await trio.to_thread.run_sync(server.stop_and_read)
            spans = {each.name: each for each in collector.spans()}
    assert set(spans) == {"session", "chat small"}
    turn, session = spans["chat small"], spans["session"]
    assert [each.trace_id for each in (turn, session)] == [TRACE, TRACE]
    assert f"00-{TRACE}-{session.parent_id}-01" == PARENT
    assert turn.parent_id == session.span_id
    asked, *for_memory = endpoint.headers
    assert asked["traceparent"] == f"00-{TRACE}-{turn.span_id}-01"
    assert not [each for each in for_memory if "traceparent" in each]
    (started,) = [line for line in log if line["event"] == "session_started"]
    assert session.attributes["session.id"] == started["session_id"]
    assert session.attributes["lastcall.end_reason"] == "client_closed"
    assert turn.attributes["gen_ai.provider.name"] == "openai"
    assert session.resource["service.name"] == "lastcall"
    assert "How are you?" not in str(spans)


async def test_a_collector_that_never_answers_costs_no_turn_and_no_budget(database_url: str) -> None:
    with trace_collector(answers=False) as collector, trio.fail_after(WITHIN_SECONDS):
        environment = exporting_to(collector, OTEL_BSP_SCHEDULE_DELAY="50", OTEL_SERVICE_NAME="mine")
        arguments = ("--agent", "echo", "--traces", "--drain-seconds", f"{DRAIN_SECONDS:g}")
        with run_server("--database-url", database_url, *arguments, env=environment) as server:
            for _ in range(3):
                async with connect(server.url, user="ada") as client:
                    await client.ask("Hello")
                await trio.to_thread.run_sync(collector.asked.wait, 10)
            began = time.monotonic()
            assert await trio.to_thread.run_sync(server.stop) == 0
            assert time.monotonic() - began < DRAIN_SECONDS


async def test_without_the_setting_nothing_of_it_is_imported() -> None:
    asked = "import lastcall.main, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = await trio.run_process([sys.executable, "-c", asked], capture_stdout=True)
    assert done.stdout == b"[]\n"


def test_a_variable_that_cannot_be_used_is_told_in_one_line(database_url: str) -> None:
    done = process("serve", "--traces", "--database-url", database_url, "--port", "0", OTEL_BSP_MAX_QUEUE_SIZE="-1")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "OTEL_" in done.err
