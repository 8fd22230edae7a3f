"""A short `scripts/hostile`, and its audit: it names each broken promise, and blames no server for a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage

from tests.support.clients import connect

from .hostile.audit import checks, figures
from .hostile.healthy_clients import Disconnection, Tally, Turn
from .hostile.inputs import KINDS, SECRET, inputs
from .hostile.run import ROOT, HostileRun
from .promises import PROMISES

RUN_SECONDS_MAX = 120
PING = b"\x89\x00"
OPTIONS: dict[str, Any] = {"seed": 1, "inputs": 3, "clients": 1, "seconds": 10}
SMALL = ("--inputs", "40", "--clients", "5", "--seconds", "5", "--seed", "7")


@pytest.mark.alone
def test_a_short_attack_costs_the_healthy_clients_nothing() -> None:
    command = [sys.executable, "-m", "tests.verification.hostile", "--json", *SMALL]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    assert answer.stdout, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    # How long things take is not judged here, as other tests may run beside this one.
    assert [name for name in result["findings"] if name not in ("healthy turns are fast", "every input was sent")] == []
    assert result["healthy_turns"] > 0
    assert result["inputs"] > 0
    assert result["secrets_in_log"] == 0


def test_the_same_seed_makes_the_same_inputs_of_every_kind() -> None:
    once, again, other = list(inputs(1, 1_000)), list(inputs(1, 1_000)), list(inputs(2, 1_000))
    assert once == again
    assert once != other
    assert {each.kind for each in once} == set(KINDS)


def turns(*seconds: float) -> list[Turn]:
    return [Turn(1000.0 + 10.0 * number, each) for number, each in enumerate(seconds)]


def good_run() -> HostileRun:
    return HostileRun(
        tally=Tally(sent=Counter(json=3), turns=turns(*[0.1] * 10)),
        attack_began=1000.0,
        attack_seconds=10.0,
        rss=[100.0] * 10,
        pid=1,
        pid_after=1,
        orphans=0,
        active_after=1,
        exit_code=0,
        log='{"event": "ready"}\n',
    )


def test_a_run_in_which_every_promise_held_is_ok() -> None:
    result = figures(good_run(), OPTIONS)
    assert result["ok"], result["broken"]


DISCONNECTED = Disconnection("client 1", 1000.0, 1010.0, timed_out=False)
TIMED_OUT = Disconnection("client 1", 1000.0, 1010.0, timed_out=True)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"tally": Tally(sent=Counter(json=2), turns=turns(*[0.1] * 10))}, "every input was sent"),
        ({"tally": Tally(sent=Counter(json=3), turns=turns(*[0.1] * 90, *[1.1] * 10))}, "healthy turns are fast"),
        ({"tally": Tally(sent=Counter(json=3))}, "healthy turns are fast"),
        (
            {"tally": Tally(sent=Counter(json=3), turns=turns(*[0.1] * 10), lost=[DISCONNECTED])},
            "no healthy client was disconnected",
        ),
        ({"pid_after": 2}, "no restart"),
        ({"pid_after": 0}, "no restart"),
        ({"exit_code": 1}, "no restart"),
        ({"orphans": 1}, "no orphan"),
        ({"active_after": 2}, "no bad peer is left"),
        ({"rss": [100.0] * 5 + [300.0] * 5}, "flat memory"),
        ({"log": f"Authorization: Bearer {SECRET}\n"}, "no secret in the log"),
        ({"log": '{"event": "session_crashed"}\n'}, "nothing crashed"),
    ],
)
def test_the_audit_names_each_check_that_failed(changes: dict[str, Any], check: str) -> None:
    result = figures(changed(changes), OPTIONS)
    assert (result["findings"], result["unjudged"]) == ([check], [])
    assert not result["ok"]
    assert not result["too_busy"]
    assert sum(result["broken"].values()) == 1


def changed(changes: dict[str, Any]) -> HostileRun:
    run = good_run()
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def test_the_audit_reports_exactly_the_promises_that_hostile_is_listed_for() -> None:
    reported = {check.promise for check in checks(good_run(), OPTIONS)}
    assert reported == {promise for promise, entry in PROMISES.items() if "hostile" in entry.provers}


@pytest.mark.parametrize(
    ("changes", "check", "source"),
    [
        ({"tally": Tally(sent=Counter(json=2), turns=turns(0.1))}, "every input was sent", "attackers"),
        ({"tally": Tally(sent=Counter(json=3), turns=turns(1.5))}, "healthy turns are fast", "runner"),
        ({"tally": Tally(sent=Counter(json=3), turns=turns(1.5))}, "healthy turns are fast", "server"),
        (
            {"tally": Tally(sent=Counter(json=3), turns=turns(0.1), lost=[TIMED_OUT])},
            "no healthy client was disconnected",
            "database",
        ),
    ],
)
def test_a_bound_in_time_is_not_judged_where_the_machine_was_busy(
    changes: dict[str, Any], check: str, source: str
) -> None:
    run = changed(changes)
    run.starvation.record(source, 1000.0, 1009.5)

    result = figures(run, OPTIONS)

    assert (result["findings"], result["unjudged"]) == ([], [check])
    assert result["too_busy"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"tally": Tally(sent=Counter(json=2), turns=turns(0.1))}, "every input was sent"),
        ({"tally": Tally(sent=Counter(json=3), turns=turns(1.5))}, "healthy turns are fast"),
        (
            {"tally": Tally(sent=Counter(json=3), turns=turns(0.1), lost=[TIMED_OUT])},
            "no healthy client was disconnected",
        ),
    ],
)
def test_a_bound_missed_by_more_than_the_lost_time_is_broken(changes: dict[str, Any], check: str) -> None:
    run = changed(changes)
    run.starvation.record("server", 1000.0, 1000.4)

    assert figures(run, OPTIONS)["findings"] == [check]


@pytest.mark.parametrize(
    "changes",
    [
        {"tally": Tally(sent=Counter(json=3), turns=turns(0.1), lost=[DISCONNECTED])},
        {"tally": Tally(sent=Counter(json=3))},
        {"exit_code": 1},
        {"orphans": 1},
        {"active_after": 2},
        {"rss": [100.0] * 5 + [300.0] * 5},
        {"log": '{"event": "session_crashed"}\n'},
    ],
)
def test_a_busy_machine_excuses_nothing_that_is_not_about_time(changes: dict[str, Any]) -> None:
    run = changed(changes)
    for source in ("runner", "server", "database", "attackers"):
        run.starvation.record(source, 900.0, 2000.0)

    result = figures(run, OPTIONS)

    assert len(result["findings"]) == 1
    assert not result["too_busy"]


async def test_a_healthy_client_survives_a_ping_that_crosses_its_close() -> None:
    """trio-websocket would send a pong after its close frame, which raises, and ends every task of the client."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    answers: list[Event] = []

    async def serve() -> None:
        protocol = WSConnection(ConnectionType.SERVER)
        async with await listener.accept() as stream:
            while data := await stream.receive_some():
                protocol.receive_data(data)
                for event in protocol.events():
                    answers.append(event)
                    if isinstance(event, Request):
                        await stream.send_all(protocol.send(AcceptConnection()))
                        await stream.send_all(protocol.send(TextMessage('{"type": "session.created"}')))
                    elif isinstance(event, CloseConnection):
                        await stream.send_all(PING + protocol.send(event.response()))

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(10):
            async with connect(f"http://127.0.0.1:{listener.socket.getsockname()[1]}") as client:
                pass

    assert [type(answer) for answer in answers] == [Request, CloseConnection]
    assert client.ws.closed is not None
    assert client.ws.closed.code == 1000
