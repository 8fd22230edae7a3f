"""Files of the pages that come from other projects, and the size of all of them together."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

from lastcall.web.pages import STATIC

ROOT = Path(__file__).resolve().parents[3]
WEB = STATIC.parent
GZIPPED_BYTES_MAX = 150_000
LISTED = json.loads((WEB / "vendored.json").read_text())


def test_vendored_files_are_those_of_the_list() -> None:
    check = subprocess.run([ROOT / "scripts" / "vendor", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


def test_every_vendored_file_has_a_version_a_hash_and_a_licence() -> None:
    assert LISTED
    for each in LISTED:
        assert re.fullmatch(r"\d+\.\d+\.\d+", each["version"])
        assert each["integrity"].startswith("sha512-")
        assert each["licence"] in ("MIT", "BSD-3-Clause", "ISC", "CC0-1.0")
        terms = "CC0 1.0 Universal" if each["licence"] == "CC0-1.0" else "Permission is hereby granted"
        assert terms in (WEB / each["licence_file"]).read_text()
        assert each["files"]
        for file in each["files"]:
            named = re.search(r"@license|\d+\.\d+\.\d+", (WEB / file["file"]).read_text()[:200])
            assert named is None or each["version"] in named.string


def test_files_that_are_minified_are_listed() -> None:
    listed = {Path(file["file"]).name for each in LISTED for file in each["files"]}
    longest = {path.name: max(map(len, path.read_text().splitlines())) for path in STATIC.glob("*.js")}
    assert {name for name, length in longest.items() if length > 500} <= listed


def test_the_pages_stay_small() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in STATIC.iterdir()) <= GZIPPED_BYTES_MAX
