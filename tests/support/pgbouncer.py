"""A real PgBouncer in front of a database."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_SECONDS = 10.0


class PgBouncer:
    """url: of the database, by way of it."""

    def __init__(self, directory: Path, database_url: str, mode: str) -> None:
        self._sockets = Path(parse_qs(urlsplit(database_url).query)["host"][0])
        self._owner = self._sockets.stat().st_uid  # PgBouncer does not run as root
        self._log, self._config = directory / "log", directory / "pgbouncer.ini"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._config.write_text(
            f"[databases]\npostgres = host={self._sockets} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PROGRAM is not None
        owner = self._owner if os.geteuid() == 0 else None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(self._config)], stdout=log, stderr=log, user=owner)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        """Ends it and all connections through it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()


@contextmanager
def run_pgbouncer(database_url: str, mode: str) -> Iterator[PgBouncer]:
    """Runs a PgBouncer; skips the test where there is none, but in CI, which installs it."""
    if PROGRAM is None and not os.environ.get("CI"):
        pytest.skip("there is no pgbouncer here (apt install pgbouncer)")
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        Path(directory).chmod(0o755)
        pgbouncer = PgBouncer(Path(directory), database_url, mode)
        try:
            pgbouncer.start()
            yield pgbouncer
        finally:
            pgbouncer.stop()
