"""Limits in virtual time: buckets, callers' shares, the gate, and what a session is told."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
from lastcall.agents.agent import ContextItem, FunctionCall, FunctionOutput, Message, Turn
from lastcall.agents.select import EchoAgent
from lastcall.agents.window import within_budget
from lastcall.config import Settings
from lastcall.limits import json_bounds
from lastcall.limits.gate import Gate
from lastcall.limits.limit import Limit, TokenBucket
from lastcall.limits.quota import CallerQuotas, Quota, caller_of, is_this_machine
from lastcall.limits.session_limits import BURST_SECONDS
from lastcall.metrics import Metrics
from lastcall.protocol.client_events import ResponseCancel
from lastcall.realtime.inbox import Inbox
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import ScriptedAgent
from tests.support.virtual_server import Peer, World

AWAY = "203.0.113.7"


def refusals(metrics: Metrics, limit: Limit) -> float:
    value = metrics.registry.get_sample_value("lastcall_limits_refused_total", {"limit": limit.value})
    assert value is not None
    return value


# --- buckets


async def test_a_bucket_gives_its_burst_at_once_and_then_its_rate(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(2.0, 5)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    assert bucket.seconds_until(1.0) == pytest.approx(0.5)
    await trio.sleep(0.5)
    assert [bucket.take() for _ in range(2)] == [True, False]
    await trio.sleep(1_000)
    assert bucket.full
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]


async def test_what_costs_more_than_a_burst_takes_the_whole_one(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(1.0, 3)
    assert bucket.take(100.0)
    assert not bucket.take(100.0)
    await trio.sleep(bucket.seconds_until(100.0))
    assert bucket.take(100.0)


# --- callers


def table(callers_max: int = 100, **share: Any) -> CallerQuotas:
    return CallerQuotas(Quota(**share), Limit.ADDRESS_RATE, Limit.ADDRESS_CONNECTIONS, callers_max)


async def test_one_callers_flood_takes_nothing_of_anothers_share(autojump_clock: MockClock) -> None:
    callers = table(per_second=1.0, burst=3.0)
    assert [callers.ask("flood") is None for _ in range(10)] == [True] * 3 + [False] * 7
    assert callers.ask("other") is None
    refused = callers.ask("flood")
    assert refused is not None
    assert refused.limit is Limit.ADDRESS_RATE
    assert refused.retry_after == pytest.approx(1.0)


async def test_a_caller_has_no_more_open_than_its_share_and_gets_it_back() -> None:
    callers = table(at_once=1)
    with callers.entered("a") as first, callers.entered("a") as second, callers.entered("b") as other:
        assert (first, other) == (None, None)
        assert second is not None
        assert second.limit is Limit.ADDRESS_CONNECTIONS
    with callers.entered("a") as again:
        assert again is None


async def test_what_a_caller_has_open_is_given_back_also_where_its_block_fails() -> None:
    callers = table(at_once=1)
    with pytest.raises(ValueError, match="broken"), callers.entered("a"):
        raise ValueError("broken")
    with callers.entered("a") as again:
        assert again is None


async def test_a_flood_of_other_callers_gives_nobody_a_new_bucket(autojump_clock: MockClock) -> None:
    callers = table(callers_max=50, per_second=0.001, burst=1.0)
    assert callers.ask("attacker") is None
    for number in range(1_000):
        callers.ask(f"puppet {number}")
    assert len(callers) <= 50
    assert callers.ask("attacker") is not None


async def test_callers_beyond_the_table_share_one_bucket(autojump_clock: MockClock) -> None:
    callers = table(callers_max=2, per_second=0.001, burst=1.0)
    assert [callers.ask(name) is None for name in ("a", "b", "c", "d")] == [True, True, True, False]


async def test_callers_that_had_their_share_back_are_forgotten(autojump_clock: MockClock) -> None:
    callers = table(per_second=1.0, burst=1.0)
    for number in range(80):
        callers.ask(f"old {number}")
    await trio.sleep(10)
    with callers.entered("kept"):
        for number in range(80):
            callers.ask(f"new {number}")
        assert len(callers) <= 81
        await trio.sleep(10)
        for number in range(80):
            callers.ask(f"newer {number}")
        assert len(callers) <= 82, "one more for whoever has something open"


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_an_address_stands_for_whoever_can_take_others_like_it(address: str, caller: str) -> None:
    assert caller_of(address) == caller


def test_this_machines_own_addresses_are_known() -> None:
    assert [is_this_machine(caller_of(each)) for each in ("127.0.0.9", "::1", "::ffff:127.0.0.1", AWAY)] == [
        True,
        True,
        True,
        False,
    ]


# --- the gate


def gate(**changes: Any) -> tuple[Gate, Metrics]:
    metrics = Metrics(Limit)
    return Gate(replace(Settings(), **changes), metrics.count_refusal), metrics


async def test_by_default_this_machine_is_not_limited_and_others_are(autojump_clock: MockClock) -> None:
    doors, metrics = gate()
    assert all(doors.request("127.0.0.1") is None for _ in range(10_000))
    assert [doors.request(AWAY) is None for _ in range(501)] == [True] * 500 + [False]
    assert refusals(metrics, Limit.HTTP_RATE) == 1


async def test_a_limit_that_is_set_holds_for_this_machine_too() -> None:
    doors, metrics = gate(address_connections_max=1)
    with doors.socket("127.0.0.1") as first, doors.socket("127.0.0.1") as second:
        assert first is None
        assert second is not None
    assert refusals(metrics, Limit.ADDRESS_CONNECTIONS) == 1


async def test_http_never_takes_more_than_its_part_of_the_sockets_nor_one_address_all_of_that() -> None:
    doors, metrics = gate()
    with ExitStack() as stack:
        mine = [stack.enter_context(doors.http_connection(AWAY)) for _ in range(40)]
        assert [each is None for each in mine] == [True] * 32 + [False] * 8
        here = [stack.enter_context(doors.http_connection("127.0.0.1")) for _ in range(Settings().http_connections_max)]
        assert sum(each is None for each in here) == Settings().http_connections_max - 40
    assert refusals(metrics, Limit.HTTP_CONNECTIONS) == 40
    with doors.http_connection(AWAY) as again:
        assert again is None


async def test_a_process_that_holds_too_much_memory_takes_no_sessions(autojump_clock: MockClock) -> None:
    doors, metrics = gate(memory_mib_max=1)
    assert doors.session(0) is Limit.MEMORY
    assert refusals(metrics, Limit.MEMORY) == 1
    assert gate()[0].session(0) is None


# --- one session


async def rude_events(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Sends events at once; what is answered."""
    for number in range(count):
        await peer.send(type="session.update", event_id=f"e{number}", session={})
    return [json.loads(await peer.ws.get_message()) for _ in range(count)]


async def test_a_client_above_its_rate_is_told_so_event_by_event_and_may_go_on(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    burst = int(2 * BURST_SECONDS)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        answers = await rude_events(peer, burst + 2)
        errors = [event["error"] for event in answers if event["type"] == "error"]
        assert [(error["code"], error["event_id"]) for error in errors] == [
            ("rate_limit_exceeded", f"e{burst}"),
            ("rate_limit_exceeded", f"e{burst + 1}"),
        ]
        await trio.sleep(burst)
        await peer.say("Hello")
    assert refusals(world.services.metrics, Limit.EVENT_RATE) == 2


async def test_a_client_that_never_stops_flooding_is_closed(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        with suppress(ConnectionClosed):
            for number in range(100):
                await peer.send(type="session.update", event_id=f"e{number}", session={})
        assert await peer.closed() == 1008
        assert peer.last_words.count("error") == 2 * BURST_SECONDS
        await world.over.wait()
    assert world.row.end_reason == "flooding"
    assert len(world.services.registry) == 0


async def test_a_client_that_pauses_between_its_bursts_is_not_flooding(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        for _ in range(5):
            await rude_events(peer, int(3 * BURST_SECONDS))
            await trio.sleep(BURST_SECONDS)
        assert world.row.is_active


async def test_a_response_begins_with_what_is_left_of_the_rate(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=1.0)
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        await peer.receive("response.created")
        limits = json.loads(await peer.ws.get_message())
    assert limits["type"] == "rate_limits.updated"
    assert limits["rate_limits"] == [{"name": "requests", "limit": 2, "remaining": 0, "reset_seconds": 2.0}]


async def test_a_session_ends_when_its_time_is_up_and_said_when_that_would_be(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), session_seconds=600.0)
    async with world.connected() as peer:
        began = trio.current_time()
        created = await peer.receive("session.created")
        assert isinstance(created["session"]["expires_at"], int)
        error = (await peer.receive("error"))["error"]
        assert (error["code"], error["event_id"]) == ("session_expired", None)
        assert trio.current_time() - began == pytest.approx(600.0)
        assert await peer.closed() == 1001
        await world.over.wait()
    assert (world.row.end_reason, world.row.close_code) == ("expired", 1001)
    assert refusals(world.services.metrics, Limit.SESSION_TIME) == 1


async def test_a_session_without_events_is_closed_where_that_is_asked_for(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), idle_seconds=60.0)
    async with world.connected() as peer:
        await peer.receive("session.created")
        for _ in range(5):
            await trio.sleep(50)
            await peer.say("Still here")
        spoke = trio.current_time()
        assert (await peer.receive("error"))["error"]["code"] == "session_idle"
        assert trio.current_time() - spoke == pytest.approx(60.0)
        assert await peer.closed() == 1001
        await world.over.wait()
    assert world.row.end_reason == "idle"


async def test_an_answer_under_way_at_the_end_of_a_sessions_time_is_kept(autojump_clock: MockClock) -> None:
    class Endless(ScriptedAgent):
        async def reply(self, turn: Turn, /) -> Any:
            yield "Well … "
            await trio.sleep_forever()

    world = World(FakeStore(), Endless(), session_seconds=30.0)
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        assert await peer.closed() == 1001
        await world.over.wait()
    assert [item.status for item in world.store.items(world.row.conversation_id)] == ["completed", "incomplete"]


async def test_a_conversation_of_too_many_characters_takes_no_more(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), conversation_chars_max=100)
    async with world.connected() as peer:
        await peer.say("x" * 90)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 20}]}
        await peer.send(type="conversation.item.create", event_id="e", item=item)
        error = (await peer.receive("error"))["error"]
        assert (error["code"], error["event_id"]) == ("conversation_full", "e")
    assert refusals(world.services.metrics, Limit.ITEMS) == 1


async def test_json_that_would_keep_everybody_waiting_is_refused_unread(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        wide = "[" + "[]," * 30_000 + "[]]"
        deep = "[" * 65 + "]" * 65
        for tracing in (wide, deep):
            await peer.ws.send_message('{"type":"session.update","event_id":"e","session":{"tracing":' + tracing + "}}")
            error = (await peer.receive("error"))["error"]
            assert (error["code"], error["event_id"]) == ("invalid_value", "e")
        await peer.say("Hello")
    assert refusals(world.services.metrics, Limit.JSON_SHAPE) == 2


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ('{"x":' + "[" * 63 + "]" * 63 + "}", True),
        ('{"x":' + "[" * 64 + "]" * 64 + "}", False),
        ('{"x":' + '{"y":' * 64 + "0" + "}" * 64 + "}", False),
        ("[" + "0," * 19_990 + "0]", True),
        ("[" + "0," * 20_001 + "0]", False),
        ('["' + "[{,:" * 100_000 + '"]', True),
        ('["' + '\\"[{' * 100_000 + '"]', True),
        ('["' + "\\\\" * 100 + '",' + "[" * 70 + "]" * 70 + "]", False),
        ('"","",' * 50_000, False),
        ("", True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_shape_of_json_is_judged_outside_of_its_strings(text: str, fine: bool) -> None:
    assert (json_bounds.problem(text, Settings().json_values_max, Settings().json_depth_max) is None) is fine


# --- an inbox, and an agent's context


async def test_an_inbox_is_bounded_in_events_and_in_bytes_but_takes_one_event_of_any_size() -> None:
    event, inbox = ResponseCancel(), Inbox(3, 100)
    assert inbox.put(event, 1_000)
    assert not inbox.put(event, 1)
    taken = aiter(inbox)
    await anext(taken)
    assert [inbox.put(event, 30) for _ in range(4)] == [True, True, True, False]
    await anext(taken)
    assert not inbox.put(event, 41)
    assert inbox.put(event, 40)


def said(*words: str) -> list[ContextItem]:
    """Messages by their texts; those in upper case are of role system."""
    return [Message("system" if word.isupper() else "user", word, f"item{n}") for n, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "chars_max", "kept"),
    [
        (["aaa", "bbb", "ccc"], 9, ["aaa", "bbb", "ccc"]),
        (["aaa", "bbb", "ccc"], 8, ["bbb", "ccc"]),
        (["SYS", "aaa", "bbb", "ccc"], 9, ["SYS", "bbb", "ccc"]),
        (["a", "bbbbbbbbb", "ccc"], 6, ["ccc"]),
        (["aaa", "much too long"], 5, ["much too long"]),
        (["OLD", "NEW", "ccc"], 6, ["NEW", "ccc"]),
        ([], 5, []),
    ],
)
def test_an_agent_is_given_the_newest_items_and_those_of_role_system(
    words: list[str], chars_max: int, kept: list[str]
) -> None:
    assert within_budget(said(*words), chars_max) == [item for item in said(*words) if texts(item) in kept]


def texts(item: ContextItem) -> str:
    return item.text if isinstance(item, Message) else item.call_id


CALLS: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionCall("f", "aaa", "call_1", "item1"),
    FunctionCall("f", "bbb", "call_2", "item2"),
    FunctionOutput("call_1", "cccc", "item3"),
    FunctionOutput("call_2", "dddd", "item4"),
]
AGAIN, END = FunctionCall("f", "aaa", "call_1", "again"), FunctionOutput("call_1", "cccc", "end")
NO_CALL: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionOutput("call_0", "cccc", "item1"),
    Message("user", "uu", "item2"),
]


@pytest.mark.parametrize(
    ("items", "chars_max", "kept"),
    [
        (CALLS, 20, "item0 item1 item2 item3 item4"),
        (CALLS, 19, "item1 item2 item3 item4"),
        (CALLS, 15, "item2 item4"),  # room for item3, but not for its call
        (CALLS, 1, "item2 item4"),
        ([*CALLS, Message("user", "uu", "item5")], 14, "item2 item4 item5"),
        ([*CALLS, Message("user", "uu", "item5")], 9, "item5"),
        (NO_CALL, 6, "item1 item2"),
        ([CALLS[1], CALLS[3], CALLS[0], AGAIN, END], 16, "item0 again end"),
    ],
)
def test_no_budget_parts_an_output_from_its_call(items: list[ContextItem], chars_max: int, kept: str) -> None:
    assert [item.item_id for item in within_budget(items, chars_max)] == kept.split()


async def test_a_long_conversation_is_told_to_the_agent_within_its_budget(autojump_clock: MockClock) -> None:
    turns: list[Turn] = []

    class Noting(ScriptedAgent):
        async def reply(self, turn: Turn, /) -> Any:
            turns.append(turn)
            yield "ok"

    world = World(FakeStore(), Noting(), context_chars_max=10)
    async with world.connected() as peer:
        for words in ("aaaa", "bbbb", "cccc"):
            await peer.say(words)
        await peer.send(type="response.create")
        await peer.receive("response.done")
    assert [message.text for message in turns[0].messages] == ["bbbb", "cccc"]
    assert refusals(world.services.metrics, Limit.CONTEXT) == 1


def test_an_events_shape_is_bounded_by_what_is_set() -> None:
    assert json_bounds.problem("[[1, 2]]", values_max=4, depth_max=2) is None
    assert json_bounds.problem("[[1, 2]]", values_max=4, depth_max=1) is not None
    assert json_bounds.problem("[[1, 2, 3, 4]]", values_max=4, depth_max=2) is not None


def test_plain_http_is_bounded_by_what_is_set_for_all_and_for_each_address() -> None:
    doors = Gate(Settings(http_connections_max=3, address_http_connections_max=2), Metrics().count_refusal)
    with ExitStack() as stack:
        mine = [stack.enter_context(doors.http_connection("192.0.2.1")) for _ in range(3)]
        assert [each is None for each in mine] == [True, True, False]
        yours = [stack.enter_context(doors.http_connection("192.0.2.2")) for _ in range(2)]
        assert all(each is not None for each in yours)
