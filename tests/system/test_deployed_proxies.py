"""The proxies of `deploy/`: TLS, the client's own address, the page's own origin, and a server that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.store.postgres import open_store

from ..support.clients import answer_text, connect_with
from ..support.databases import new_database
from ..support.deployed_proxies import HOST, RunningProxy, free_ports, require, run_proxy
from ..support.operators import OPERATOR
from ..support.processes import ServerProcess, run_server

if TYPE_CHECKING:
    from ..support.deployed_proxies import Proxy

pytestmark = pytest.mark.slow

PATH = "/v1/conversations?user=ada"
CLIENT = "127.0.0.2"  # an address of this machine that is no trusted proxy's


@dataclass
class Deployment:
    """One server that runs, and the port of one that does not, behind a proxy."""

    server: ServerProcess
    proxy: RunningProxy
    key: str

    def client(self) -> httpx2.Client:
        transport = httpx2.HTTPTransport(local_address=CLIENT, verify=self.proxy.tls)
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.proxy.url, transport=transport, headers=headers)


async def new_key(url: str) -> str:
    async with open_store(url) as store:
        return (await key_admin.create_key(store, "ada", Scope.SERVICE, OPERATOR)).key


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def deployment(request: pytest.FixtureRequest, database_url: str) -> Iterator[Deployment]:
    proxy: Proxy = request.param
    require(proxy)
    up, down = free_ports(2)
    with ExitStack() as stack:
        url = stack.enter_context(new_database(database_url))
        options = ("--agent", "echo", "--trusted-proxy", "127.0.0.1", "--access-log")
        server = stack.enter_context(run_server("--database-url", url, "--port", str(up), *options))
        running = stack.enter_context(run_proxy(proxy, [down, up]))
        yield Deployment(server, running, trio.run(new_key, url))


async def test_a_client_chats_over_tls(deployment: Deployment) -> None:
    query = {"user": "ada"}
    async with connect_with(deployment.proxy.url, query, deployment.key, deployment.proxy.tls) as client:
        assert answer_text(await client.ask("hello")) == "You said: hello"


def test_without_tls_a_client_is_sent_to_where_there_is(deployment: Deployment) -> None:
    answer = httpx2.get(f"{deployment.proxy.plain_url}/console")
    assert answer.status_code == 301
    assert answer.headers["Location"].startswith(f"https://{HOST}")


def test_a_server_that_is_away_is_noticed_by_nobody(deployment: Deployment) -> None:
    with deployment.client() as client:
        assert {client.get(PATH).status_code for _ in range(10)} == {200}
        body = {"user": "ada"}
        assert {client.post("/v1/realtime/client_secrets", json=body).status_code for _ in range(10)} == {200}


@pytest.mark.parametrize("forged", [{}, {"X-Forwarded-For": "203.0.113.1"}, {"Forwarded": "for=203.0.113.1"}])
def test_a_client_has_its_own_address_whatever_it_pretends(deployment: Deployment, forged: dict[str, str]) -> None:
    with deployment.client() as client:
        assert client.get(PATH, headers=forged).status_code == 200
    while (line := deployment.server.wait_for("http_request"))["address"] != CLIENT:
        assert line["address"] != "203.0.113.1"


def test_pages_of_the_proxys_address_are_the_servers_own(deployment: Deployment) -> None:
    with deployment.client() as client:
        own = deployment.proxy.url
        assert client.get(PATH, headers={"Origin": own}).status_code == 200
        assert client.get(PATH, headers={"Origin": "https://other.example"}).status_code == 403
