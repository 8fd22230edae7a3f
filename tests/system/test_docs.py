"""The site that scripts/docs makes of docs/."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from ..support.distributions import COMMAND_SECONDS, ROOT, foreign_environment, run

DOCS = ROOT / "docs"
NAVIGATION = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What a browser fetches by itself from another host; a link that a reader may follow is none.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|modulepreload))[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//""",
    re.IGNORECASE,
)


def in_navigation() -> list[str]:
    entries = [line for block in NAVIGATION.findall((DOCS / "index.md").read_text()) for line in block.splitlines()]
    return [line for line in entries if line and not line.startswith(":")]


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that is written is added to docs/index.md."""
    assert sorted(in_navigation()) == sorted(page.stem for page in DOCS.glob("*.md") if page.stem != "index")


@pytest.fixture(scope="module")
def generator() -> Path:
    """The environment with what makes the site."""
    run(ROOT / "scripts" / "set-up", "--docs")
    return ROOT / ".venv-docs"


def tree(folder: Path, generator: Path) -> Path:
    """A tree with scripts/docs, which finds its environment there already; docs/ comes from the caller."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "docs", folder / "scripts")
    (folder / "scripts" / "set-up").write_text("#!/bin/sh\n")
    (folder / "scripts" / "set-up").chmod(0o755)
    (folder / ".venv-docs").symlink_to(generator)
    return folder


def make_site(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "scripts" / "docs"), *arguments]
    environment = foreign_environment()
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


@pytest.mark.slow
def test_the_site_has_every_page_and_fetches_nothing_from_elsewhere(generator: Path, tmp_path: Path) -> None:
    folder = tree(tmp_path, generator)
    for each in ROOT.iterdir():  # pages link to files beside docs/
        if not each.name.startswith(".") and each.name not in {"scripts", "site"}:
            (folder / each.name).symlink_to(each)
    done = make_site(folder)
    assert (done.returncode, done.stderr) == (0, "")
    site = folder / "site"
    assert {page.stem for page in site.glob("*.html")} >= {page.stem for page in DOCS.glob("*.md")}
    built = [each for each in site.rglob("*") if each.suffix in {".html", ".css", ".js"}]
    assert [str(each) for each in built if FETCHED.search(each.read_text())] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](index.md#gone)", "gone"),
        ("[gone](../scripts/gone)", "../scripts/gone"),
        ("![gone](images/gone.png)", "image file not readable"),
    ],
)
def test_a_broken_link_anchor_or_picture_fails(text: str, told: str, generator: Path, tmp_path: Path) -> None:
    pages = tree(tmp_path, generator) / "docs"
    pages.mkdir()
    shutil.copy(DOCS / "conf.py", pages)
    (pages / "index.md").write_text(f"# Home\n\n## A part\n\n[here](index.md#a-part)\n\n{text}\n")
    done = make_site(tmp_path)
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if "WARNING" in line]) == 1
    assert told in done.stderr


def test_an_unknown_option_is_one_line() -> None:
    done = make_site(ROOT, "--clean")
    assert (done.returncode, done.stderr) == (2, "scripts/docs: the only option is --serve [PORT]\n")


@pytest.mark.slow
def test_the_site_is_shown_where_that_is_asked_for(generator: Path, tmp_path: Path) -> None:
    pages = tree(tmp_path, generator) / "docs"
    pages.mkdir()
    shutil.copy(DOCS / "conf.py", pages)
    (pages / "index.md").write_text("# Shown\n")
    command = [str(tmp_path / "scripts" / "docs"), "--serve", "0"]
    environment = foreign_environment(PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+?/", server.stdout.readline())
            assert found is not None
            assert "Shown" in httpx2.get(found[0]).text
        finally:
            server.kill()
