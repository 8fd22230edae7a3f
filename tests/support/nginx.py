"""A real nginx in front of a server."""

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

import pytest

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_SECONDS = 10.0

CONFIG = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; {settings} }} }}
}}
"""


@contextmanager
def run_nginx(url: str, settings: str = "") -> Iterator[str]:
    """The URL of an nginx in front of this one; skips the test where there is none, but in CI, which installs it.

    settings: of its location, such as `proxy_set_header …;`.
    """
    if PROGRAM is None and not os.environ.get("CI"):
        pytest.skip("there is no nginx here (apt install nginx-light)")
    assert PROGRAM is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="lastcall-") as folder:
        Path(folder).chmod(0o755)  # its worker is another user than root
        config, log = Path(folder) / "nginx.conf", Path(folder) / "log"
        config.write_text(CONFIG.format(folder=folder, port=port, url=url, settings=settings))
        with log.open("wb") as output:
            process = subprocess.Popen([PROGRAM, "-c", str(config), "-e", "stderr"], stdout=output, stderr=output)
        try:
            _wait_for(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text())
