"""Pages of the docs, followed literally: their commands run in one shell, in a root of their own.

Paths and ports are moved there, in the commands and in the files of `deploy/` that they copy. What needs a machine has
a stand-in: packages are there already, nobody becomes another user, and instead of systemd a thread starts what the
unit files say.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lastcall.embedded import programs

from .deployed_proxies import free_ports
from .unit_manager import CLIENT, UnitManager, run_unit_manager

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("deploy", "server", "schema.sql", "pyproject.toml", "README.md", "LICENSE", "requirements.lock")
FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMPT = "$ "
FOLDERS = ("etc/nginx", "etc/systemd/system", "etc/pgbouncer", "opt", "var/lib/lastcall", "log/nginx", "log/postgresql")

STAND_INS = {
    "apt-get": "exit 0",
    "adduser": "exit 0",
    "chown": "exit 0",
    "runuser": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
    # What belongs to the database's user belongs to the one of ours.
    "install": """
args= owned=
while [ $# -gt 0 ]; do case $1 in -o | -g) owned=yes; shift 2 ;; *) args="$args $1"; shift ;; esac; done
/usr/bin/install $args
[ -z "$owned" ] || /usr/bin/chown {owner} "${args##* }"
""",
}
# In place of the first two steps, which take minutes: the environment of the tests.
HAVING_PACKAGES = {
    "python3": 'mkdir -p "$3/bin"; ln -s {bin}/lastcall "$3/bin/lastcall"; printf "#!/bin/sh\\n" > "$3/bin/pip"; '
    'chmod +x "$3/bin/pip"',
}


def commands(*pages: str) -> list[str]:
    """The commands of these pages of `docs/`, in their order."""
    texts = [(ROOT / "docs" / page).read_text() for page in pages]
    return [
        line.removeprefix(PROMPT)
        for text in texts
        for block in FENCE.findall(text)
        for line in block.splitlines()
        if line.startswith(PROMPT)
    ]


class Walk:
    """root: where everything is. url: of the proxy. tls: the file with its certificate."""

    def __init__(self, root: Path, database_url: str, manager: UnitManager) -> None:
        self.root = root
        self.manager = manager
        first, second, proxy, plain, pooler = free_ports(5)
        self.ports = first, second
        self.url = f"https://localhost:{proxy}"
        self.tls = root / "etc" / "ssl" / "lastcall" / "chain.pem"
        sockets = sockets_of(database_url)
        self._environment = {"PGHOST": sockets, "PGUSER": "postgres", "PGDATABASE": "postgres"}
        self._moved = {
            "8001": str(first),
            "8002": str(second),
            "6432": str(pooler),
            "https://$NAME": f"https://$NAME:{proxy}",
            "listen 443": f"listen 127.0.0.1:{proxy}",
            "listen 80": f"listen 127.0.0.1:{plain}",
            "host=127.0.0.1 port=5432": f"host={sockets}",
            "/etc/": f"{root}/etc/",
            "/opt/": f"{root}/opt/",
            "/var/lib/lastcall": f"{root}/var/lib/lastcall",
            "/run/nginx.pid": f"{root}/run/nginx.pid",
            "/var/log/": f"{root}/log/",
            "/var/run/postgresql/pgbouncer.pid": f"{root}/run/pgbouncer.pid",
            "/var/run/postgresql": sockets,
        }

    def prepare(self, *, fresh: bool) -> None:
        """Makes the folders, the checkout, and the stand-ins. fresh: the packages are really installed."""
        for each in (*FOLDERS, "run", "bin", "checkout"):
            (self.root / each).mkdir(parents=True, exist_ok=True)
        for each in ("log/postgresql", "run"):
            (self.root / each).chmod(0o1777)  # PgBouncer is another user than root
        checkout, unwanted = self.root / "checkout", shutil.ignore_patterns("__pycache__")
        for each in COPIED:
            if (ROOT / each).is_dir():
                shutil.copytree(ROOT / each, checkout / each, ignore=unwanted)
            else:
                shutil.copy(ROOT / each, checkout / each)
        for file in (checkout / "deploy").rglob("*"):
            if file.is_file() and file.suffix != ".json":
                file.write_text(self._placed(file.read_text()))
        for name, script in {**STAND_INS, **({} if fresh else HAVING_PACKAGES)}.items():
            script = script.replace("{bin}", str(Path(sys.executable).parent))
            self._write(name, "#!/bin/sh\n" + script.replace("{owner}", str(self.manager.database_owner)) + "\n")
        self._write("systemctl", f"#!{sys.executable}\n{CLIENT.format(address=self.manager.address)}")

    def _write(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _placed(self, text: str) -> str:
        for old, new in self._moved.items():
            text = text.replace(old, new)
        return text

    def follow(self, lines: Sequence[str], seconds_max: float) -> str:
        """Runs commands in one shell, which stops at the first that fails; what they said."""
        script = "".join(f"{self._placed(line)}\n" for line in lines)
        own = f"{self.root / 'bin'}:{programs.programs()}"
        environment = {**_without_settings(os.environ), **self._environment}
        environment["PATH"] = f"{own}:{environment['PATH']}:/usr/sbin"
        done = subprocess.run(
            ["bash", "-euxo", "pipefail"],
            input=script,
            cwd=self.root / "checkout",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds_max,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{self.manager.logs()}"
        return done.stdout


def sockets_of(database_url: str) -> str:
    """The folder of a database's socket."""
    return parse_qs(urlsplit(database_url).query)["host"][0]


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(("LASTCALL_", "PG"))}


@contextmanager
def open_walk(root: Path, database_url: str, *, fresh: bool = False) -> Iterator[Walk]:
    """A root to follow pages in; what they started is ended when the block is left."""
    with run_unit_manager(root, Path(sockets_of(database_url)).stat().st_uid) as manager:
        walk = Walk(root, database_url, manager)
        walk.prepare(fresh=fresh)
        yield walk
