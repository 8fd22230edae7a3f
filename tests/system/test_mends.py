"""Ten mistakes of operators: `lastcall doctor` finds each, and is content once what it says is done word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from lastcall.embedded import programs

from ..support.databases import as_role, new_database, new_role, psql
from ..support.lastcall_command import Lastcall
from ..support.pgbouncer import run_pgbouncer
from ..support.postgresql import Cluster

pytestmark = pytest.mark.slow

COMMAND_SECONDS = 60.0
LOOKS_MAX = 100  # for reloaded settings of PostgreSQL
SQL = ("ALTER ", "GRANT ", "SET ", "SELECT ")


class Finding(NamedTuple):
    status: str
    mend: str


@dataclass
class Site:
    """A PostgreSQL of its own, whose settings may be spoilt, with a database and a role that servers have.

    flags: of the server. limit: of open files, in its shell.
    """

    cluster: Cluster
    owner: str
    role: str
    folder: Path
    lastcall: Lastcall
    monkeypatch: pytest.MonkeyPatch
    url: str = ""
    flags: list[str] = field(default_factory=list)
    limit: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return psql(self.owner, "SELECT quote_ident(current_database())")

    def environment(self, url: str) -> dict[str, str]:
        path = os.pathsep.join([str(programs.programs()), str(Path(sys.executable).parent), os.environ["PATH"]])
        clean = {key: value for key, value in os.environ.items() if not key.startswith("LASTCALL_")}
        return {**clean, "PATH": path, "LASTCALL_DATABASE_URL": url, **self.variables}

    def doctor(self, check: str) -> Finding:
        """The worst finding of a check, with the server's settings."""
        command, url = ["doctor", "--json", "--port", "0", *self.flags], self.url or as_role(self.owner, self.role)
        if self.limit:
            done = self.shell(f'{self.limit} && exec "$@"', "lastcall", *command, url=url)
        else:
            with self.monkeypatch.context() as patch:
                patch.chdir(self.folder)
                for name, value in {"LASTCALL_DATABASE_URL": url, **self.variables}.items():
                    patch.setenv(name, value)
                done = self.lastcall(*command).out
        found = [Finding(each["status"], each["mend"]) for each in json.loads(done)["checks"] if each["name"] == check]
        return min(found, key=lambda each: ("fail", "warn", "ok").index(each.status), default=Finding("ok", ""))

    def shell(self, script: str, *words: str, url: str) -> str:
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(url),
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr  # 1: a check failed
        return done.stdout

    def restart(self) -> None:
        self.cluster.stop()
        self.cluster.start()

    def mend(self, text: str) -> None:
        """Does what it says, up to the first alternative, as somebody would who knows nothing else."""
        text = re.split(r", or | \(", text.removeprefix("as the owner: "))[0]
        steps = text.split("; ")
        psql(self.owner, *(step for step in steps if step.startswith(SQL)))  # in one session
        for step in (step for step in steps if not step.startswith(SQL)):
            if step == "then restart PostgreSQL":
                self.restart()
            elif step.startswith("ulimit "):
                self.limit = step
            elif step.startswith("did you mean "):
                (right,) = re.findall(r"LASTCALL_\w+", step)
                (wrong,) = self.variables
                self.variables = {right: self.variables[wrong]}
            else:
                command = re.sub(r"^(run|create one with) | as their owner$", "", step)
                assert command.startswith(("lastcall ", "chmod ")), text
                self.shell(command, url=self.owner)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        Path(directory).chmod(0o755)  # as root, PostgreSQL runs as another user, who must get through
        made = Cluster(Path(directory))
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path, lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with new_database(cluster.url) as owner, new_role(cluster.url) as role:
        assert lastcall("migrate", "--database-url", owner).code == 0
        psql(
            owner,
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}",
        )
        yield Site(cluster, owner, role, tmp_path, lastcall, monkeypatch)
        psql(owner, f"DROP OWNED BY {role}")


def in_sql(*statements: str, restart: bool = False) -> Callable[[Site], None]:
    def plant(site: Site) -> None:
        psql(site.owner, *(each.format(role=site.role, database=site.database) for each in statements))
        if restart:
            site.restart()

    return plant


def key_that_others_can_read(site: Site) -> None:
    (site.folder / "jwt.key").write_text("k" * 40)
    (site.folder / "jwt.key").chmod(0o644)
    site.flags = ["--jwt-secret-file", "jwt.key"]


def few_files(site: Site) -> None:
    site.limit = "ulimit -n 64"


def misspelt_variable(site: Site) -> None:
    site.variables = {"LASTCALL_DRAIN_SECOND": "20"}


def open_to_everybody(site: Site) -> None:
    site.flags = ["--host", "0.0.0.0"]


PLANTED: dict[str, tuple[str, Callable[[Site], None]]] = {
    "commits that do not wait for the disk": (
        "synchronous_commit",
        in_sql("ALTER ROLE {role} SET synchronous_commit = off"),
    ),
    "a disk that is not waited for": ("fsync", in_sql("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")),
    "a database that was left read-only": (
        "standby",
        in_sql("ALTER DATABASE {database} SET default_transaction_read_only = on"),
    ),
    "a role that may have too few connections": ("connections", in_sql("ALTER ROLE {role} CONNECTION LIMIT 6")),
    "max_connections that leaves too few for roles without privileges": (
        "connections",
        in_sql("ALTER SYSTEM SET max_connections = 9", restart=True),
    ),
    "a grant that is missing": ("grants", in_sql("REVOKE INSERT ON messages FROM {role}")),
    "a schema that was restored by half": (
        "schema",
        in_sql("DROP TRIGGER report_ended_session ON conversation_sessions"),
    ),
    "a secret that others can read": ("secret_files", key_that_others_can_read),
    "too few open files": ("open_files", few_files),
    "a misspelt variable": ("environment", misspelt_variable),
    "a server for everybody without keys": ("credentials", open_to_everybody),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_is_found_and_its_mend_works_word_for_word(site: Site, mistake: str) -> None:
    check, plant = PLANTED[mistake]
    plant(site)
    found = next((seen for _ in range(LOOKS_MAX) if (seen := site.doctor(check)).status != "ok"), None)
    assert found is not None
    site.mend(found.mend)
    # A reload takes a moment to reach PostgreSQL's other processes.
    assert any(site.doctor(check).status == "ok" for _ in range(LOOKS_MAX)), site.doctor(check)


def test_a_pooler_by_transaction_is_found_and_its_mend_works_word_for_word(site: Site) -> None:
    with run_pgbouncer(site.cluster.url, "transaction") as pgbouncer:
        site.url = pgbouncer.url
        found = site.doctor("pooler")
    assert found.status == "fail"
    (mode,) = re.findall(r"^pool_mode = (\w+) in PgBouncer", found.mend)
    with run_pgbouncer(site.cluster.url, mode) as pgbouncer:
        site.url = pgbouncer.url
        assert site.doctor("pooler").status == "ok"
