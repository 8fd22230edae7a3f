"""The container image, step by step without an engine, and the manifests that run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from lastcall.cli.entry import lastcall
from lastcall.config import Settings
from lastcall.runtime.watchdog import FORCE_MARGIN_SECONDS

from ..support.link import open_link
from ..support.processes import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "Containerfile"
MANIFEST = ROOT / "deploy" / "kubernetes" / "lastcall.yaml"
STEP_SECONDS = 240.0
USER = 10_001
KEY_COMMAND = ("keys", "create", "ada", "--json")


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its words, over all stages."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(name, words) for name, _, words in (line.partition(" ") for line in lines)]


def kept(name: str) -> bool:
    """Whether .containerignore lets an entry of the tree into the build."""
    return f"!{name}" in (ROOT / ".containerignore").read_text().splitlines()


def build(source: Path, app: Path) -> None:
    """Follows the steps of the first stage with these folders in place of its own."""
    steps = instructions()
    first, second = (number for number, (name, _) in enumerate(steps) if name == "FROM")
    for name, words in steps[first + 1 : second]:
        if name == "COPY":
            *froms, to = words.split()
            for each in froms:
                assert kept(each)
                into = source / to
                if (ROOT / each).is_dir():
                    shutil.copytree(ROOT / each, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / each, into)
        elif name == "RUN":
            command = [sys.executable if word == "python" else word.replace("/app", str(app)) for word in words.split()]
            done = subprocess.run(
                command, cwd=source, capture_output=True, text=True, timeout=STEP_SECONDS, check=False
            )
            assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        else:
            assert (name, words) == ("WORKDIR", "/src")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the first stage builds."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "src").mkdir()
    build(folder / "src", folder / "app")
    return folder / "app"


def files(folder: Path) -> dict[Path, float]:
    return {each: each.lstat().st_mtime for each in folder.rglob("*")}


@pytest.mark.slow
async def test_what_is_built_serves_and_writes_nothing_beside_its_database(app: Path, database_url: str) -> None:
    words = dict(instructions())
    (entry,), command = (json.loads(words[name]) for name in ("ENTRYPOINT", "CMD"))
    program, before = app / "bin" / entry, files(app)
    async with open_link(database_url) as link:
        # No home and no folder for temporary files, as where the root file system is read-only.
        env = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "LASTCALL_DATABASE_URL": link.url}
        env |= dict(each.split("=") for each in words["ENV"].split())

        async def run(*arguments: str) -> str:
            done = await trio.run_process([program, *arguments], capture_stdout=True, env=env, cwd="/")
            return done.stdout.decode()

        key = (await run("keys", "create", "ada")).split()[-1]
        options = ("--port", "0", "--admin-port", "0", "--agent", "echo")
        process = subprocess.Popen(  # noqa: ASYNC220 - it outlives no await that is slow
            [program, *command, *options], stdout=subprocess.PIPE, env=env, cwd="/", text=True
        )
        try:
            server = await trio.to_thread.run_sync(ServerProcess, process)
            url = server.url.replace("0.0.0.0", "127.0.0.1")
            assert "hello there" in await run("chat", "--url", url, "--key", key, "hello there")
            assert await trio.to_thread.run_sync(server.stop) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert files(app) == before


def test_the_image_runs_as_a_user_by_number() -> None:
    assert (
        dict(instructions())["USER"] == f"{USER}:{USER}"
    )  # by number: else Kubernetes cannot tell that it is not root


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> Any:
    return manifests["Deployment"]["spec"]["template"]


def test_everything_selects_the_same_pods(manifests: dict[str, Any], pod: Any) -> None:
    labels = pod["metadata"]["labels"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_it_has_the_time_that_a_shutdown_may_take(pod: Any) -> None:
    (container,) = pod["spec"]["containers"]
    given = {each["name"].removeprefix("LASTCALL_").lower(): float(each["value"]) for each in container["env"]}
    assert given.keys() <= {each.name for each in fields(Settings)}
    ready = container["readinessProbe"]
    assert given["drain_delay"] > ready["periodSeconds"] * ready["failureThreshold"]
    longest = given["drain_delay"] + given["drain_seconds"] + FORCE_MARGIN_SECONDS
    assert pod["spec"]["terminationGracePeriodSeconds"] > longest


def test_its_probes_and_the_image_name_the_same_ports(manifests: dict[str, Any], pod: Any) -> None:
    (container,) = pod["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    words = dict(instructions())
    assert {str(each) for each in ports.values()} == set(words["EXPOSE"].split())
    command = json.loads(words["CMD"])
    assert command[command.index("--admin-port") + 1] == str(ports["operators"])
    assert ports["http"] == Settings().port
    paths = {name: each["httpGet"] for name, each in container.items() if name.endswith("Probe")}
    assert {each["port"] for each in paths.values()} == {"operators"}
    assert {each["path"] for each in paths.values()} == {"/healthz", "/readyz"}
    assert pod["spec"]["securityContext"]["runAsUser"] == USER
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_its_command_is_one_of_ours() -> None:
    words = dict(instructions())
    command, *options = json.loads(words["CMD"])
    context = lastcall.commands[command].make_context(command, options)
    assert context.params["json_logs"]
