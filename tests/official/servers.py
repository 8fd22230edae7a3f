"""The servers that the clients talk to: one that speaks plain WebSockets, and one on TLS, for clients that insist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.processes import ServerProcess, run_server

AGENT = "tests.official.agent:Patient"


class Servers:
    """`urls` of both by scheme, http and https. A restart keeps them: another server comes in each one's place."""

    def __init__(self, flags: tuple[str, ...], tls: tuple[str, ...], stack: ExitStack) -> None:
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
        """SIGTERM to each, and a new server on the same database and port."""
        for scheme, server in self._running.items():
            assert server.stop() == 0
            self._start(scheme)


@contextmanager
def run_servers(database_url: str, pages: str, folder: Path) -> Iterator[Servers]:
    """Starts both, for clients on `pages` too. The authority of the certificate is left in `folder`, as ca.pem."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    flags = ("--database-url", database_url, "--agent", AGENT, "--allow-origin", pages)
    with ExitStack() as stack:
        yield Servers(flags, tls, stack)
