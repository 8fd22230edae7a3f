"""Databases and roles of a test's own, in the PostgreSQL that its worker shares."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import uuid4

from lastcall.embedded import cluster, programs


def psql(url: str, *statements: str) -> str:
    """Runs statements as a person would, each in a transaction of its own; returns what they print."""
    commands = [word for each in statements for word in ("-c", each)]
    answer = cluster.run("psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", *commands, url)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@contextmanager
def person(url: str, *statements: str) -> Iterator[None]:
    """Somebody in psql whose transaction has run these statements, and stays open for the block."""
    program = [str(programs.programs() / "psql"), "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", url]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{each};\n" for each in ("BEGIN", *statements)) + "\\echo done\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) != "done\n":
            assert line, "psql has ended"
        yield  # leaving closes its input, so that it ends


def connected_client(url: str) -> subprocess.Popen[str]:
    """A psql that is connected and waits for more."""
    command = [str(programs.programs() / "psql"), "-Atq", url]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("SELECT 'here';\n")
    client.stdin.flush()
    assert client.stdout.readline() == "here\n"
    return client


@contextmanager
def new_database(url: str, *settings: str, options: str = "") -> Iterator[str]:
    """The URL of a new, empty database. settings: for ALTER DATABASE … SET. options: for CREATE DATABASE."""
    name = f"test_{uuid4().hex}"
    psql(url, f"CREATE DATABASE {name} {options}", *(f"ALTER DATABASE {name} SET {each}" for each in settings))
    try:
        yield url.replace("/postgres?", f"/{name}?")
    finally:
        psql(url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def new_role(url: str) -> Iterator[str]:
    """The name of a new role that may log in, and owns nothing."""
    name = f"role_{uuid4().hex[:12]}"
    psql(url, f"CREATE ROLE {name} LOGIN")
    try:
        yield name
    finally:
        psql(url, f"DROP ROLE {name}")


def as_role(url: str, role: str, *, schema: str | None = None) -> str:
    """The URL for a role, and for a schema other than the role's own default."""
    path = "" if schema is None else f"&options={quote(f'-csearch_path={schema}')}"
    return url.replace("postgres@", f"{role}@", 1) + path
