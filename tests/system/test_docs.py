"""The site that scripts/docs makes of docs/."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ..support.distributions import COMMAND_SECONDS, ROOT, foreign_environment, run

DOCS = ROOT / "docs"
SITE_OPTIONS = ("--builder", "html", "--fresh-env", "--fail-on-warning", "--quiet")
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
def sphinx() -> Path:
    run(ROOT / "scripts" / "set-up", "--docs")
    return ROOT / ".venv-docs" / "bin" / "sphinx-build"


@pytest.fixture(scope="module")
def site(sphinx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("docs")
    run(sphinx, *SITE_OPTIONS, "--doctree-dir", into / "read", DOCS, into / "site", env=foreign_environment())
    return into / "site"


@pytest.mark.slow
def test_the_site_has_every_page_and_fetches_nothing_from_elsewhere(site: Path) -> None:
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
def test_a_broken_link_anchor_or_picture_fails(text: str, told: str, sphinx: Path, tmp_path: Path) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "conf.py").write_text((DOCS / "conf.py").read_text())
    (pages / "index.md").write_text(f"# Home\n\n## A part\n\n[here](index.md#a-part)\n\n{text}\n")
    done = subprocess.run(
        [sphinx, *SITE_OPTIONS, pages, tmp_path / "site"],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if "WARNING" in line]) == 1
    assert told in done.stderr
