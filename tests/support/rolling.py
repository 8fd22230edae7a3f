"""Clients that chat, servers that are replaced one by one, and what is left of what the clients were told."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Literal

import httpx2
import msgspec
import trio
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.store.postgres import open_store

from .databases import new_database, psql
from .deployed_proxies import RunningProxy, free_ports, run_proxy
from .operators import OPERATOR
from .processes import ServerProcess, run_server
from .talkers import PAUSE_SECONDS_MAX, Talker
from .waiting import eventually

Way = Literal["workers", "nginx", "haproxy"]
Tell = Callable[[str], None]

CLIENTS, CLIENTS_MAX = 200, 1_000
SERVERS = 2
TURNS_BEFORE, TURNS_AFTER = 2, 2  # of each client, before and after all are replaced
RUN_SECONDS = 300.0
PROBES = 4  # at once
PROBE_SECONDS = 0.05  # between two requests of each, over a connection of their own
ANSWER_SECONDS = 10.0
DRAIN_DELAY = {"nginx": "0", "haproxy": "4"}  # as each configuration's first lines ask for
REQUESTS = (
    ("GET", "/v1/conversations?user=probe", None),
    ("POST", "/v1/realtime/client_secrets", b'{"user": "probe"}'),
)
INSTANCES = "SELECT instance_id FROM server_instances WHERE stopped_at IS NULL AND reaped_at IS NULL"


class Outcome(msgspec.Struct):
    """What came of replacing all servers once.

    Attributes:
        acknowledged: Items of which clients were told that they are stored.
        lost: How many of these the database does not have.
        refused: Connections and requests that were not let in or not answered, and why.
        clients_resumed: Clients that came back to their conversation.
        told_again: Connections that were let in only to be told that the server restarts.
        cut: Connections whose close frame was lost, because the client wrote into a connection just closed.
        probes: HTTP requests that were answered meanwhile, each over a connection of its own.
        away_seconds_max: The longest that any client had no session, without the pause that it made itself.
        roll_seconds: How long it took to replace all.
        active_rows: Left once all had ended.
        exit_codes: Of the servers, or of the supervisor.
    """

    way: Way
    clients: int
    acknowledged: int
    lost: int
    refused: list[str]
    clients_resumed: int
    told_again: int
    cut: int
    probes: int
    away_seconds_max: float
    roll_seconds: float
    active_rows: int
    exit_codes: list[int]


def held(outcome: Outcome) -> bool:
    """Whether nothing was lost or refused, and everybody has gone on."""
    return (
        not outcome.lost
        and not outcome.refused
        and outcome.clients_resumed == outcome.clients
        and not outcome.active_rows
        and not any(outcome.exit_codes)
    )


def play(way: Way, database_url: str, clients: int, tell: Tell = lambda _: None) -> Outcome:
    """One roll, on a database of its own beside `database_url`. Raises `NoProxy`."""
    with new_database(database_url) as url:
        tell(f"{way}: {clients} clients begin to chat")
        return _play_workers(url, clients, tell) if way == "workers" else _play_servers(way, url, clients, tell)


def _play_workers(url: str, clients: int, tell: Tell) -> Outcome:
    with run_server("--database-url", url, "--agent", "echo", "--workers", str(SERVERS)) as server:

        async def replace() -> None:
            server.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(server.wait_for, "workers_replaced")

        roll = Roll("workers", url, server.url, None, None, clients)
        trio.run(roll.run, replace, tell)
        return roll.outcome([server.stop()])


def _play_servers(way: Literal["nginx", "haproxy"], url: str, clients: int, tell: Tell) -> Outcome:
    ports = free_ports(SERVERS)
    options = ("--trusted-proxy", "127.0.0.1", "--drain-delay", DRAIN_DELAY[way])
    codes: list[int] = []
    with ExitStack() as stack:

        def start(port: int) -> ServerProcess:
            command = ("--database-url", url, "--agent", "echo", "--port", str(port), *options)
            return stack.enter_context(run_server(*command))

        servers = {port: start(port) for port in ports}
        key = trio.run(_new_key, url)
        proxy = stack.enter_context(run_proxy(way, ports))
        _wait_until_both_are_known(proxy)

        async def replace() -> None:
            for port in ports:
                codes.append(await trio.to_thread.run_sync(servers[port].stop))
                servers[port] = await trio.to_thread.run_sync(start, port)

        roll = Roll(way, url, proxy.url, key, proxy.tls, clients)
        trio.run(roll.run, replace, tell)
        codes += [each.stop() for each in servers.values()]
        return roll.outcome(codes)


async def _new_key(url: str) -> str:
    async with open_store(url) as store:
        return (await key_admin.create_key(store, "talkers", Scope.SERVICE, OPERATOR)).key


def _wait_until_both_are_known(proxy: RunningProxy) -> None:
    with httpx2.Client(base_url=proxy.url, verify=proxy.tls) as client:
        assert client.get("/readyz").status_code == 200


class Roll:
    """The clients of one roll, and a probe beside them."""

    def __init__(
        self, way: Way, database_url: str, url: str, key: str | None, tls: ssl.SSLContext | None, clients: int
    ) -> None:
        self._way: Way = way
        self._database_url = database_url
        self._url, self._key, self._tls = url, key, tls
        pause = PAUSE_SECONDS_MAX * min(clients / CLIENTS, 1.0)  # a few may say more
        self._talkers = [Talker(url, number, key, tls, pause) for number in range(clients)]
        self._replaced = trio.Event()
        self._probed: list[str] = []
        self._seconds = float("inf")

    async def run(self, replace: Callable[[], Awaitable[None]], tell: Tell) -> None:
        """Raises `TooSlowError` where it does not come to an end, or a server says nothing."""
        with trio.fail_after(RUN_SECONDS):
            async with trio.open_nursery() as nursery:
                for talker in self._talkers:
                    nursery.start_soon(talker.talk, lambda ledger: ledger.turns < TURNS_BEFORE or self._goes_on())
                await eventually(self._turns_min, lambda turns: turns >= TURNS_BEFORE, within=RUN_SECONDS)
                before = self._instances()
                for _ in range(PROBES):
                    nursery.start_soon(self._probe)
                tell(f"{self._way}: replacing {SERVERS} one by one")
                began = trio.current_time()
                await replace()
                self._seconds = trio.current_time() - began
                assert before.isdisjoint(self._instances())
                assert len(before) == SERVERS
                self._replaced.set()
            goals = {talker.name: talker.ledger.turns + TURNS_AFTER for talker in self._talkers}
            async with trio.open_nursery() as nursery:
                for talker in self._talkers:
                    goal = goals[talker.name]
                    nursery.start_soon(talker.talk, lambda ledger, goal=goal: ledger.turns < goal)

    def _goes_on(self) -> bool:
        return not self._replaced.is_set()

    async def _turns_min(self) -> int:
        return min(each.ledger.turns for each in self._talkers)

    def _instances(self) -> set[str]:
        return set(psql(self._database_url, INSTANCES).splitlines())

    async def _probe(self) -> None:
        """Asks over a new connection each time, in turn what may be asked twice and what may not."""
        headers = {"Authorization": f"Bearer {self._key}", "Connection": "close", "Content-Type": "application/json"}
        while not self._replaced.is_set():
            for method, path, content in REQUESTS:
                try:
                    async with httpx2.AsyncClient(verify=self._tls or False, timeout=ANSWER_SECONDS) as client:
                        answer = await client.request(method, self._url + path, headers=headers, content=content)
                        self._probed.append("" if answer.is_success else f"{method}: {answer.status_code}")
                except httpx2.HTTPError as error:
                    self._probed.append(f"{method}: {error!r}")
            await trio.sleep(PROBE_SECONDS)

    def outcome(self, exit_codes: list[int]) -> Outcome:
        """To be asked once all servers have ended."""
        ledgers = [each.ledger for each in self._talkers]
        acknowledged = {item for each in ledgers for item in each.acknowledged}
        stored = set(psql(self._database_url, "SELECT item_id FROM messages").splitlines())
        active = psql(self._database_url, "SELECT count(*) FROM conversation_sessions WHERE is_active")
        return Outcome(
            way=self._way,
            clients=len(ledgers),
            acknowledged=len(acknowledged),
            lost=len(acknowledged - stored),
            refused=[why for each in ledgers for why in each.refused] + [why for why in self._probed if why],
            clients_resumed=sum(each.resumed > 0 for each in ledgers),
            told_again=sum(each.told_again for each in ledgers),
            cut=sum(each.cut for each in ledgers),
            probes=self._probed.count(""),
            away_seconds_max=max(each.away_seconds_max for each in ledgers),
            roll_seconds=self._seconds,
            active_rows=int(active),
            exit_codes=exit_codes,
        )
