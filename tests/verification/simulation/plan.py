"""What a seed plans: servers, people with their manners, and faults. Pure; the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .agent import MEMORY_MARKS, REPLY_MARKS

ENDINGS = ("close", "fin", "reset", "garbage", "oversize", "vanish", "slow", "stay", "flood")
"""How a person ends a visit: with a close frame, FIN, RST, bytes that are no frame, a message that is too big, without
a word, by reading no more of a long answer, not at all (the server ends it, or patience does), or with more events than
a session may send."""
ENDING_WEIGHTS = (8, 3, 4, 2, 2, 3, 2, 2, 1)
OPENINGS = ("plain", "torn", "late", "half", "foreign", "lost", "silent")
"""How a visit begins: in one piece, in many, with a long pause, with half a handshake, in somebody else's
conversation, at a wrong path, or without any byte."""
OPENING_WEIGHTS = (20, 8, 2, 1, 1, 1, 1)
DURING = ("after", "asked", "answering")
"""When a visit ends: after its turns, right after its last question, or in the middle of the answer."""

REQUESTS = ("delete", "delete_open", "retrieve", "out_of_band", "tool")
"""What a person asks for with its last turn: to delete its own words, or the answer under way; to see its words again;
an answer outside the conversation, beside the one in it; an answer that calls a tool."""
REQUEST_WEIGHTS = (3, 2, 1, 2, 3)

SERVER_FAULTS = ("crash", "terminate", "hurry", "freeze", "declared_dead")
LINK_FAULTS = ("refused", "silent", "errors", "slow", "outage", "stall")
ROW_FAULTS = ("by_hand",)
DUEL_FAULTS = ("duel",)
MOMENT_FAULTS = ("arrival", "comeback", "unseen", "standstill")
FAULTS = SERVER_FAULTS + LINK_FAULTS + ROW_FAULTS + DUEL_FAULTS + MOMENT_FAULTS
FAULT_WEIGHTS = (3, 3, 2, 3, 1, 2, 2, 2, 2, 2, 2, 4, 10, 3, 4, 4, 3)

CLIENT_CAUSES = ("close", "fin", "reset", "garbage", "oversize", "vanish")
SERVER_CAUSES = ("by_hand", "signal", "crash", "declared_dead")
GAPS = (0.0, 0.0, 0.0005, 0.001, 0.002, 0.005, 0.02)  # seconds between the two endings of a duel
DAY_SECONDS = 86_400.0
SESSION_SECONDS = (DAY_SECONDS, DAY_SECONDS, DAY_SECONDS, 5.0)
IDLE_SECONDS = (None, None, None, 4.5)  # less than a client's patience, more than it takes to miss one that vanished
SPAN_SECONDS = 14.0  # in which people come and faults begin


@dataclass(frozen=True, slots=True)
class Manner:
    """One visit.

    turns: the marks of each, which the agent obeys. thinks: seconds between turns.

    busy: does not listen while it thinks. interrupts: cancels its last answer half way.
    returns: the next visit goes on in the conversation of this one. request: one of `REQUESTS`, or nothing.
    """

    turns: Sequence[str]
    thinks: float
    opening: str
    ending: str
    during: str
    torn: bool
    busy: bool
    interrupts: bool
    returns: bool
    request: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    comes: float
    visits: Sequence[Manner]


@dataclass(frozen=True, slots=True)
class Fault:
    """kind at a time (seconds from the beginning), for so long where it lasts. pair, gap: of a duel."""

    at: float
    kind: str
    lasts: float = 0.0
    again: bool = True
    pair: tuple[str, str] = ("", "")
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """settles: whether everything comes to rest before the last servers are ended, or is ended with them.

    session_seconds, idle_seconds: the servers' limits.
    """

    seed: int
    hosts: Sequence[str]
    people: Sequence[Person]
    faults: Sequence[Fault]
    settles: bool
    session_seconds: float = DAY_SECONDS
    idle_seconds: float | None = None


def plan_of(seed: int) -> Plan:
    random = Random(f"plan {seed}")
    servers = random.choice((1, 2, 2, 3))
    one_host = random.random() < 0.5
    hosts = ["host" if one_host else f"host{number}" for number in range(servers)]
    people = [_person(random, number) for number in range(random.randint(26, 42))]
    faults = sorted((_fault(random) for _ in range(random.choice((0, 3, 5, 6, 8, 11)))), key=lambda fault: fault.at)
    settles = random.random() < 0.5
    return Plan(seed, hosts, people, faults, settles, random.choice(SESSION_SECONDS), random.choice(IDLE_SECONDS))


def _person(random: Random, number: int) -> Person:
    # Round times, so that people and faults meet at the same instant.
    visits = [_manner(random) for _ in range(random.choice((1, 2, 2, 3, 3)))]
    return Person(f"user{number}", round(random.uniform(0, SPAN_SECONDS / 2), 1), visits)


def _manner(random: Random) -> Manner:
    opening = random.choices(OPENINGS, OPENING_WEIGHTS)[0]
    ending = random.choices(ENDINGS, ENDING_WEIGHTS)[0]
    return Manner(
        turns=[_mark(random) for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3)))],
        thinks=random.choice((0.0, 0.0, 0.05, 0.2, 0.5, 1.6)),
        opening=opening,
        ending=ending,
        during=random.choice(DURING),
        torn=random.random() < 0.2,
        busy=random.random() < 0.3,
        interrupts=random.random() < 0.15,
        returns=random.random() < 0.6,
        request=random.choices(REQUESTS, REQUEST_WEIGHTS)[0] if random.random() < 0.3 else "",
    )


def _mark(random: Random) -> str:
    chance = random.random()
    if chance < 0.22:
        return random.choices(REPLY_MARKS, (6, 3, 3, 2, 2, 1, 2, 2))[0]
    if chance < 0.30:
        return random.choices(MEMORY_MARKS, (4, 4, 2, 1))[0]
    return ""


def _fault(random: Random) -> Fault:
    kind = random.choices(FAULTS, FAULT_WEIGHTS)[0]
    # A moment needs people.
    at = round(random.uniform(0.1, SPAN_SECONDS / 2 if kind in MOMENT_FAULTS else SPAN_SECONDS), 1)
    lasts = random.choice((0.2, 0.6, 1.2, 2.0, 3.5, 5.0))
    if kind == "outage":
        lasts = random.choice((0.6, 2.2, 3.0, 4.0))
    if kind == "stall":
        lasts = random.choice((2.2, 3.4, 4.0))
    if kind == "hurry":
        lasts = random.choice((0.0, 0.05, 0.5, 1.0, 1.8))
    first, second = random.choice(SERVER_CAUSES), random.choice(CLIENT_CAUSES + SERVER_CAUSES)
    pair = (first, second) if random.random() < 0.5 else (second, first)
    return Fault(at, kind, lasts, random.random() < 0.8, pair, random.choice(GAPS))
