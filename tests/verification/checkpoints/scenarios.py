"""The scenarios: a small, repeatable world for each way in which a session ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ..simulation.plan import Behaviour, ClientPlan, Fault, Plan

SUBJECT, BYSTANDER = "subject", "bystander"
BYSTANDER_TURNS = 2

Steps = Literal["connection", "shutdown", "memory", "anew", "awake"]
"""Which steps are struck. connection: of the subject's connection, from its first byte. memory: of the finalizer, after
the subject's row was closed. shutdown, anew, awake: of all tasks of its server, after a signal, after it lost its
lease, after it was thawed."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way in which a session ends.

    settings: those that differ from the simulation's. bug: number of the subject's call of `append_items`, from 1, that
    raises an unexpected exception; 0: none.
    """

    name: str
    plan: Plan
    steps: Steps = "connection"
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    bug: int = 0


def _behaviour(*turns: str, ending: str = "close", **changes: Any) -> Behaviour:
    usual = {"thinks": 0.0, "opening": "plain", "during": "after", "torn": False, "busy": False}
    return Behaviour(turns=turns, ending=ending, **{**usual, "interrupts": False, "returns": False, **changes})


def _scenario(
    name: str,
    *visits: Behaviour,
    fault: Fault | None = None,
    hosts: int = 1,
    comes: float = 0.0,
    **rest: Any,
) -> Scenario:
    """A subject makes its visits while a bystander talks to the same server. The fault's time counts from when the
    subject is served."""
    bystander = ClientPlan(BYSTANDER, 0.0, [_behaviour(*[""] * BYSTANDER_TURNS, thinks=0.2)])
    clients = [ClientPlan(SUBJECT, comes, visits), bystander]
    plan = Plan(0, ["host"] * hosts, clients, [fault] if fault else [], settles=True)
    return Scenario(name, plan, **rest)


_STAY = _behaviour("", ending="stay")
_MID_ANSWER = _behaviour("", "#slow", ending="stay", during="answering")
_ALL = (
    # the client ends it
    _scenario("close frame", _behaviour("")),
    _scenario("FIN", _behaviour("", ending="fin")),
    _scenario("RST", _behaviour("", ending="reset")),
    _scenario("protocol error", _behaviour("", ending="garbage")),
    _scenario("too big", _behaviour("", ending="oversize")),
    _scenario("vanished", _behaviour("", ending="vanish")),
    _scenario("slow reader", _behaviour(ending="slow")),
    _scenario("client returns", _behaviour("", ending="reset", returns=True), _behaviour("")),
    # in the middle of an answer
    _scenario("close in mid-answer", _behaviour("#slow", during="answering")),
    _scenario("RST in mid-answer", _behaviour("#slow", ending="reset", during="answering")),
    _scenario("cancel, then close", _behaviour("#slow", interrupts=True)),
    _scenario("agent ignores cancellation", _behaviour("#deaf", during="answering")),
    # something fails
    _scenario("agent crash", _behaviour("#raise", "#exit")),
    _scenario("agent hangs", _behaviour("#hang")),
    _scenario("session crash", _STAY, bug=1),
    _scenario("crash in mid-answer", _STAY, bug=2),
    # no session begins
    _scenario("begin refused", _behaviour(opening="foreign")),
    _scenario("wrong path", _behaviour(opening="lost")),
    _scenario("half a handshake", _behaviour(opening="half")),
    _scenario("overloaded", _behaviour(""), comes=0.25, settings=MappingProxyType({"connections_max": 1})),
    # the server, another server or a person ends it
    _scenario("row closed elsewhere", _STAY, fault=Fault(0.1, "by_hand")),
    _scenario("row closed in mid-answer", _MID_ANSWER, fault=Fault(0.1, "by_hand")),
    _scenario("SIGTERM", _STAY, fault=Fault(0.1, "terminate"), steps="shutdown"),
    _scenario("SIGTERM in mid-answer", _MID_ANSWER, fault=Fault(0.1, "terminate"), steps="shutdown"),
    _scenario("second SIGTERM", _behaviour("#hang", ending="stay"), fault=Fault(0.1, "hurry", 0.3), steps="shutdown"),
    _scenario("lease lost", _STAY, fault=Fault(0.1, "declared_dead"), steps="anew"),
    _scenario("frozen and reaped", _STAY, fault=Fault(0.1, "freeze", 5.0, again=False), hosts=2, steps="awake"),
    _scenario("database away", _behaviour("", thinks=0.5), fault=Fault(0.1, "outage", 0.6)),
    # after the end
    _scenario("memory", _behaviour("#dawdle"), steps="memory"),
    _scenario("memory fails once", _behaviour("#forget"), steps="memory"),
    _scenario(
        "memory never", _behaviour("#never"), steps="memory", settings=MappingProxyType({"memory_attempts_max": 2})
    ),
)
SCENARIOS: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in _ALL})
