"""Every program in the README and in docs/ runs as written, except for the server's address and key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import connect
from tests.support.processes import run_server

from .frameworks import environment
from .node import FOLDER
from .program import ROOT
from .servers import Servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

RUN_SECONDS = 180.0  # the SDKs take seconds of a processor to import
PATIENCE_MS = 15_000.0
LANGUAGES = {"python", "js", "html"}
# In test_least_privilege.py, test_configuration.py and, an event, test_deliveries.py. Patroni's settings are tested
# nowhere, as is said beside them.
TESTED_ELSEWHERE = {"sql", "toml", "json", "yaml"}
FRAMEWORK = re.compile(r"^from (livekit|pipecat|pydantic_ai)\b", re.MULTILINE)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def programs() -> dict[str, tuple[str, str]]:
    """Language and text of every program, by its place."""
    found: dict[str, tuple[str, str]] = {}
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for language, text in FENCE.findall(file.read_text()):
            if language not in TESTED_ELSEWHERE:
                found[f"{file.name}-{len(found)}-{language}"] = (language, text)
    return found


PROGRAMS = programs()
AGENTS = {name for name, (_, text) in PROGRAMS.items() if "async def reply" in text}
OF_FRAMEWORKS = {name for name, (_, text) in PROGRAMS.items() if FRAMEWORK.search(text)}
IN_A_PAGE = {name for name, (language, text) in PROGRAMS.items() if language == "html" or "document." in text}


def expected(text: str) -> str:
    """The text that a program must print."""
    if "client_secrets" in text or "getToken" in text:
        return "ek_"
    if "verify_signature" in text:
        return ""  # only a function, which a test of webhooks calls
    if "get_weather" in text:
        return "the tool said: sunny in Oslo"
    said = re.search(r"""(?:"text": |text: |"content": |send\(|user_input=|sendTextMessage\()["'](.*?)["']""", text)
    assert said, text
    return f"You said: {said[1]}"


def interpreter(name: str) -> str:
    """What runs a program; those of frameworks have an environment of their own."""
    if name in OF_FRAMEWORKS:
        return str(environment.PYTHON)
    return sys.executable if PROGRAMS[name][0] == "python" else "node"


def placed(text: str, servers: Servers) -> str:
    """The program for these servers, of which one speaks TLS and the other does not."""
    for scheme, base in (("http", "http"), ("ws", "http"), ("https", "https"), ("wss", "https")):
        ours = servers.urls[base].replace(base, scheme, 1)
        text = text.replace(f"{scheme}://127.0.0.1:8000", ours)
    assert "127.0.0.1:8000" not in text
    return text.replace('"unused"', f'"{servers.key}"')


def test_no_program_is_in_a_language_that_no_test_runs() -> None:
    assert {language for language, _ in PROGRAMS.values()} == LANGUAGES
    assert any(name.startswith("README") for name in PROGRAMS)


@pytest.fixture(scope="module")
def outputs(
    servers: Servers,
    folder: Path,
    node_installed: None,
    frameworks_installed: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Exit code and output of a program. All start together: most of their time goes into imports."""
    place = tmp_path_factory.mktemp("programs")
    (place / "node_modules").symlink_to(FOLDER / "node_modules")
    env = {**os.environ, "OPENAI_API_KEY": servers.key, "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem")}
    with ExitStack() as stack:
        running = {}
        for name in PROGRAMS.keys() - IN_A_PAGE - AGENTS:
            language, text = PROGRAMS[name]
            file = place / f"{name}{'.py' if language == 'python' else '.mjs'}"
            file.write_text(placed(text, servers))
            command = [interpreter(name), str(file)]
            key = {"OPENAI_API_KEY": servers.client_secret("ada")} if name in OF_FRAMEWORKS else {}
            process = subprocess.Popen(
                command, env={**env, **key}, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            running[name] = stack.enter_context(process)
            stack.callback(process.kill)

        def output(name: str) -> tuple[int, str]:
            shown, _ = running[name].communicate(timeout=RUN_SECONDS)
            return running[name].returncode, shown

        yield output


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - IN_A_PAGE - AGENTS))
def test_a_program_of_the_docs_runs(name: str, outputs: Callable[[str], tuple[int, str]]) -> None:
    code, shown = outputs(name)
    assert code == 0, shown
    assert expected(PROGRAMS[name][1]) in shown


@pytest.mark.parametrize("name", sorted(AGENTS))
async def test_an_agent_of_the_docs_answers(name: str, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROGRAMS[name][1])
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with run_server("--database-url", database_url, "--agent", "mine:make", env=environment) as server:
        async with connect(server.url) as client:
            done = await client.ask("Hello")
    assert done["response"]["output"][0]["content"][0]["text"].strip() == "HELLO"


@pytest.mark.parametrize("name", sorted(IN_A_PAGE))
def test_a_page_of_the_docs_runs(
    name: str, servers: Servers, browser: Browser, pages: str, node_installed: None
) -> None:
    from playwright.sync_api import expect

    language, text = PROGRAMS[name]
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.route(f"{pages}/secret", lambda route: route.fulfill(body=servers.client_secret("ada")))
    address = f"{servers.urls['https'].replace('https', 'wss', 1)}/v1/realtime?model=lastcall"
    setup = {"token": servers.client_secret("ada"), "url": address}
    page.route(f"{pages}/setup", lambda route: route.fulfill(json=setup))
    page.goto(f"{pages}/page.html")
    if language == "html":
        page.set_content(placed(text, servers))
    else:
        page.add_script_tag(content=placed(text, servers), type="module")
    expect(page.locator("body")).to_contain_text(expected(text), timeout=PATIENCE_MS)
