"""Files of secrets that others can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing
from lastcall import logs
from lastcall.runtime.secret_files import warn_of_readable_secrets


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o620, False), (0o640, True), (0o604, True), (0o444, True)]
)
def test_a_file_that_others_can_read_is_warned_of_in_one_line(tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    file.chmod(mode)
    logs.configure(json_logs=False, level="warning")
    with structlog.testing.capture_logs() as lines:
        warn_of_readable_secrets([file, None, tmp_path / "missing", tmp_path])
    assert [line["file"] for line in lines] == ([str(file)] if warned else [])
    assert all(f"chmod 600 {file}" in line["advice"] for line in lines)


def test_a_secret_that_is_mounted_by_a_link_is_looked_at_itself(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("secret")
    (tmp_path / "data").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    logs.configure(json_logs=False, level="warning")
    with structlog.testing.capture_logs() as lines:
        warn_of_readable_secrets([tmp_path / "link"])
    assert lines == []
