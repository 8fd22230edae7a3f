"""The proxies of `deploy/` as they are shipped, but for their ports, their certificate and their folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import trustme

Proxy = Literal["nginx", "haproxy"]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
START_SECONDS = 10.0
HOST = "localhost"


class NoProxy(Exception):
    """The program is not installed; the message is one line."""


@dataclass(frozen=True)
class RunningProxy:
    """url: https, for clients. plain_url: http. tls: for clients, which then trust its certificate."""

    url: str
    plain_url: str
    tls: ssl.SSLContext


@contextmanager
def run_proxy(proxy: Proxy, servers: Sequence[int]) -> Iterator[RunningProxy]:
    """Runs it in front of two servers on these ports of this machine. Raises `NoProxy`."""
    program = shutil.which(proxy, path=PATH)
    if program is None:
        raise NoProxy(f"there is no {proxy} here (apt install {proxy})")
    port, plain_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        folder = Path(directory)
        folder.chmod(0o755)  # nginx's workers are another user than root
        authority = trustme.CA()
        _write_certificate(authority, folder)
        config = folder / f"{proxy}.conf"
        config.write_text(_placed(proxy, folder, port, plain_port, servers))
        command = {
            "nginx": [program, "-c", str(config), "-e", "stderr", "-g", "daemon off; error_log stderr;"],
            "haproxy": [program, "-db", "-f", str(config)],
        }[proxy]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_for(process, port, log)
            tls = ssl.create_default_context()
            authority.configure_trust(tls)
            yield RunningProxy(f"https://{HOST}:{port}", f"http://{HOST}:{plain_port}", tls)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def is_installed(program: str) -> bool:
    return shutil.which(program, path=PATH) is not None


def require(program: str) -> None:
    """Skips the test where the program is not installed, but in CI, which installs it."""
    if not is_installed(program) and not os.environ.get("CI"):
        pytest.skip(f"there is no {program} here (apt install {program})")


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


def placed(text: str, changes: Mapping[str, str]) -> str:
    """The text with these parts changed, each of which it has."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _placed(proxy: Proxy, folder: Path, port: int, plain_port: int, servers: Sequence[int]) -> str:
    first, second = (str(each) for each in servers)
    if proxy == "nginx":
        text = (DEPLOY / "nginx" / "nginx.conf").read_text()
        changes = {
            "listen 443": f"listen 127.0.0.1:{port}",
            "listen 80": f"listen 127.0.0.1:{plain_port}",
            "server_name chat.example": f"server_name {HOST}",
            "/etc/ssl/lastcall": str(folder),
            "/run/nginx.pid": f"{folder}/pid",
            "/var/log/nginx/access.log": f"{folder}/access.log",
            "127.0.0.1:8001": f"127.0.0.1:{first}",
            "127.0.0.1:8002": f"127.0.0.1:{second}",
            "http {": "http {\n"
            + "".join(
                f"    {kind}_temp_path {folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        }
        if os.geteuid() != 0:
            changes["user www-data;"] = ""
    else:
        text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
        changes = {
            "bind :443": f"bind 127.0.0.1:{port}",
            "bind :80": f"bind 127.0.0.1:{plain_port}",
            "/etc/ssl/lastcall": str(folder),
            "maxconn 20000": "maxconn 2000",  # each needs two descriptors
            "log /dev/log local0": "log stdout format raw local0",
            "127.0.0.1:8001": f"127.0.0.1:{first}",
            "127.0.0.1:8002": f"127.0.0.1:{second}",
        }
    return placed(text, changes)


def _write_certificate(authority: trustme.CA, folder: Path) -> None:
    certificate = authority.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(folder / "chain.pem"), append=True)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "haproxy.pem"))


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((HOST, port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text())
