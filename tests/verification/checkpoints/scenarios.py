"""The scenarios: one small, repeatable world for each way in which a session ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ..simulation.plan import Fault, Manner, Person, Plan

SUBJECT, BYSTANDER = "subject", "bystander"
BYSTANDER_TURNS = 2

Steps = Literal["connection", "shutdown", "memory", "anew", "awake"]
"""Whose steps are struck. connection: of the subject's connection, from its first byte; memory: of the finalizer, since
the subject's row was closed. The others are steps of all tasks of its server: since a signal, since it lost its lease,
since it woke up."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to end.

    settings: that differ from those of the simulation. bug: which of the subject's calls of `append_items`, counted
    from 1, raises what no code expects; 0: none.
    """

    name: str
    plan: Plan
    steps: Steps = "connection"
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    bug: int = 0


def _manner(*turns: str, ending: str = "close", **changes: Any) -> Manner:
    usual = {"thinks": 0.0, "opening": "plain", "during": "after", "torn": False, "busy": False}
    return Manner(turns=turns, ending=ending, **{**usual, "interrupts": False, "returns": False, **changes})


def _scenario(
    name: str,
    *visits: Manner,
    fault: Fault | None = None,
    hosts: int = 1,
    comes: float = 0.0,
    **rest: Any,
) -> Scenario:
    """The subject makes its visits while a bystander talks to the same server. A fault begins when the subject has
    been served for so long."""
    bystander = Person(BYSTANDER, 0.0, [_manner(*[""] * BYSTANDER_TURNS, thinks=0.2)])
    people = [Person(SUBJECT, comes, visits), bystander]
    plan = Plan(0, ["host"] * hosts, people, [fault] if fault else [], settles=True)
    return Scenario(name, plan, **rest)


_STAY = _manner("", ending="stay")
_MID_ANSWER = _manner("", "#slow", ending="stay", during="answering")
_ALL = (
    # the client ends it
    _scenario("close frame", _manner("")),
    _scenario("FIN", _manner("", ending="fin")),
    _scenario("RST", _manner("", ending="reset")),
    _scenario("protocol error", _manner("", ending="garbage")),
    _scenario("too big", _manner("", ending="oversize")),
    _scenario("vanished", _manner("", ending="vanish")),
    _scenario("slow reader", _manner(ending="slow")),
    _scenario("came back", _manner("", ending="reset", returns=True), _manner("")),
    # in the middle of an answer
    _scenario("close in mid-answer", _manner("#slow", during="answering")),
    _scenario("RST in mid-answer", _manner("#slow", ending="reset", during="answering")),
    _scenario("cancel, then close", _manner("#slow", interrupts=True)),
    _scenario("agent deaf to cancellation", _manner("#deaf", during="answering")),
    # something fails
    _scenario("agent crash", _manner("#raise", "#exit")),
    _scenario("agent hangs", _manner("#hang")),
    _scenario("session crash", _STAY, bug=1),
    _scenario("crash in mid-answer", _STAY, bug=2),
    # no session, or none that is wanted
    _scenario("begin refused", _manner(opening="foreign")),
    _scenario("wrong path", _manner(opening="lost")),
    _scenario("half a handshake", _manner(opening="half")),
    _scenario("turned away", _manner(""), comes=0.25, settings=MappingProxyType({"connections_max": 1})),
    # the server or somebody else ends it
    _scenario("row closed elsewhere", _STAY, fault=Fault(0.1, "by_hand")),
    _scenario("row closed in mid-answer", _MID_ANSWER, fault=Fault(0.1, "by_hand")),
    _scenario("SIGTERM", _STAY, fault=Fault(0.1, "terminate"), steps="shutdown"),
    _scenario("SIGTERM in mid-answer", _MID_ANSWER, fault=Fault(0.1, "terminate"), steps="shutdown"),
    _scenario("second SIGTERM", _manner("#hang", ending="stay"), fault=Fault(0.1, "hurry", 0.3), steps="shutdown"),
    _scenario("lease lost", _STAY, fault=Fault(0.1, "declared_dead"), steps="anew"),
    _scenario("frozen and reaped", _STAY, fault=Fault(0.1, "freeze", 5.0, again=False), hosts=2, steps="awake"),
    _scenario("database away", _manner("", thinks=0.5), fault=Fault(0.1, "outage", 0.6)),
    # and what comes after
    _scenario("memory", _manner("#dawdle"), steps="memory"),
    _scenario("memory fails once", _manner("#forget"), steps="memory"),
    _scenario("memory never", _manner("#never"), steps="memory", settings=MappingProxyType({"memory_attempts_max": 2})),
)
SCENARIOS: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in _ALL})
