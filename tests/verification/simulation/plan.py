"""Plans the world of a seed: its servers, clients with their behaviour, and faults. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .fakes.agent import MEMORY_MARKS, REPLY_MARKS

ENDINGS = ("close", "fin", "reset", "garbage", "oversize", "vanish", "slow", "stay", "flood")
"""How a client ends a visit: with a close frame, FIN, RST, bytes that are no frame, or a message that is too big; by
vanishing silently, by reading no more of a long answer, not at all (the server ends it, or the client's patience runs
out), or with more events than a session may send."""
ENDING_WEIGHTS = (8, 3, 4, 2, 2, 3, 2, 2, 1)
OPENINGS = ("plain", "torn", "late", "half", "foreign", "lost", "silent")
"""How a visit begins: in one piece, in many, with a long pause, with half a handshake, in somebody else's
conversation, at a wrong path, or without any byte."""
OPENING_WEIGHTS = (20, 8, 2, 1, 1, 1, 1)
DURING = ("after", "asked", "answering")
"""When a visit ends: after its turns, right after its last question, or in the middle of the answer."""

REQUESTS = ("delete", "delete_open", "edit", "retrieve", "out_of_band", "tool")
"""What a client requests with its last turn: to delete its own item, or the answer that is streaming; to edit its item,
by deleting it and creating it again under its id; to retrieve it; an answer outside the conversation beside the one in
it; an answer that calls a tool."""
REQUEST_WEIGHTS = (3, 2, 2, 1, 2, 3)

SERVER_FAULTS = ("crash", "terminate", "hurry", "freeze", "declared_dead")
LINK_FAULTS = ("refused", "silent", "errors", "slow", "outage", "stall")
ROW_FAULTS = ("by_hand",)
DUEL_FAULTS = ("duel",)
TIMED_FAULTS = ("arrival", "comeback", "unseen", "standstill")
FAULTS = SERVER_FAULTS + LINK_FAULTS + ROW_FAULTS + DUEL_FAULTS + TIMED_FAULTS
FAULT_WEIGHTS = (3, 3, 2, 3, 1, 2, 2, 2, 2, 2, 2, 4, 10, 3, 4, 4, 3)

CLIENT_CAUSES = ("close", "fin", "reset", "garbage", "oversize", "vanish")
SERVER_CAUSES = ("by_hand", "signal", "crash", "declared_dead")
GAPS = (0.0, 0.0, 0.0005, 0.001, 0.002, 0.005, 0.02)  # seconds, between the two endings of a duel
DAY_SECONDS = 86_400.0
SESSION_SECONDS = (DAY_SECONDS, DAY_SECONDS, DAY_SECONDS, 5.0)
IDLE_SECONDS = (None, None, None, 4.5)  # less than a client's patience, more than it takes to notice a vanished one
SPAN_SECONDS = 14.0  # in which clients connect and faults begin


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a client behaves in one visit.

    turns: the mark of each, which tells the agent how to behave. thinks: seconds between turns.
    torn: writes its events in two pieces. busy: does not read while it thinks. interrupts: cancels its last answer.
    returns: the next visit continues this one's conversation. request: one of `REQUESTS`, or nothing.
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
class ClientPlan:
    """A client, when it comes (seconds from the beginning), and its visits one after the other."""

    name: str
    comes: float
    visits: Sequence[Behaviour]


@dataclass(frozen=True, slots=True)
class Fault:
    """at: seconds from the beginning. lasts: seconds. again: whether the server is restarted. pair, gap: of a duel."""

    at: float
    kind: str
    lasts: float = 0.0
    again: bool = True
    pair: tuple[str, str] = ("", "")
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole world.

    settles: whether everything comes to rest before the last servers are ended, or ends with them.
    session_seconds, idle_seconds: the servers' limits.
    """

    seed: int
    hosts: Sequence[str]
    clients: Sequence[ClientPlan]
    faults: Sequence[Fault]
    settles: bool
    session_seconds: float = DAY_SECONDS
    idle_seconds: float | None = None


def plan_of(seed: int) -> Plan:
    random = Random(f"plan {seed}")
    servers = random.choice((1, 2, 2, 3))
    one_host = random.random() < 0.5
    hosts = ["host" if one_host else f"host{number}" for number in range(servers)]
    clients = [_client(random, number) for number in range(random.randint(26, 42))]
    faults = sorted((_fault(random) for _ in range(random.choice((0, 3, 5, 6, 8, 11)))), key=lambda fault: fault.at)
    settles = random.random() < 0.5
    return Plan(seed, hosts, clients, faults, settles, random.choice(SESSION_SECONDS), random.choice(IDLE_SECONDS))


def _client(random: Random, number: int) -> ClientPlan:
    # Round times, so that clients and faults coincide.
    visits = [_behaviour(random) for _ in range(random.choice((1, 2, 2, 3, 3)))]
    return ClientPlan(f"user{number}", round(random.uniform(0, SPAN_SECONDS / 2), 1), visits)


def _behaviour(random: Random) -> Behaviour:
    opening = random.choices(OPENINGS, OPENING_WEIGHTS)[0]
    ending = random.choices(ENDINGS, ENDING_WEIGHTS)[0]
    return Behaviour(
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
    # A timed fault needs clients.
    at = round(random.uniform(0.1, SPAN_SECONDS / 2 if kind in TIMED_FAULTS else SPAN_SECONDS), 1)
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
