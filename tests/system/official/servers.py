"""The servers that the clients connect to: one without TLS, and one with TLS for clients that insist on it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import asyncpg
import trustme

from tests.support.processes import ServerProcess, run_server

AGENT = "tests.system.official.agent:Patient"


class Servers:
    """Both servers. `urls` has their URLs by scheme, http and https; a restart keeps them.

    key: an API key of a backend, which names the user of each session.
    """

    def __init__(self, key: str, flags: tuple[str, ...], tls: tuple[str, ...], stack: ExitStack) -> None:
        self.key = key
        self._flags = flags
        self._tls = tls
        self._stack = stack
        self._running: dict[str, ServerProcess] = {}
        self.urls: dict[str, str] = {}
        self._start("http")
        self._start("https")

    def _start(self, scheme: str) -> None:
        port = str(urlsplit(self.urls[scheme]).port) if scheme in self.urls else "0"
        tls = self._tls if scheme == "https" else ()
        server = self._stack.enter_context(run_server(*self._flags, *tls, "--port", port))
        self._running[scheme] = server
        self.urls[scheme] = server.url

    def restart(self) -> None:
        """Stops each server with SIGTERM and starts another on the same database and port."""
        for scheme, server in self._running.items():
            assert server.stop() == 0
            self._start(scheme)

    def client_secret(self, user: str) -> str:
        """A client secret, as a backend would make one for a user's browser."""
        body = json.dumps({"user": user}).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with urlopen(Request(f"{self.urls['http']}/v1/realtime/client_secrets", body, headers)) as answer:
            value: str = json.load(answer)["value"]
            return value


@contextmanager
def run_servers(database_url: str, pages: str, folder: Path) -> Iterator[Servers]:
    """Starts both. Pages of the origin `pages` may connect. Writes the certificate's authority to ca.pem in `folder`.

    They use a database of their own beside `database_url`, because its keys close a server to clients without one.
    """
    database_url = asyncio.run(_new_database(database_url, f"clients_{uuid4().hex}"))
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    flags = ("--database-url", database_url, "--agent", AGENT, "--allow-origin", pages)
    with ExitStack() as stack:
        yield Servers(create_key(database_url), flags, tls, stack)


async def _new_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def create_key(database_url: str) -> str:
    """Makes a backend's key on the command line."""
    command = [sys.executable, "-m", "lastcall", "keys", "create", "backend", "--scope", "service"]
    answer = subprocess.run([*command, "--database-url", database_url], capture_output=True, text=True, check=True)
    return answer.stdout.strip()
