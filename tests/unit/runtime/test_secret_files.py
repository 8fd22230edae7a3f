"""Files of secrets that others can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from lastcall.runtime.check import CheckStatus
from lastcall.runtime.secret_files import check_secret_files


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o620, False), (0o640, True), (0o604, True), (0o444, True)]
)
def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    file.chmod(mode)
    [check] = check_secret_files([file, None, tmp_path / "missing", tmp_path])
    assert check.status is (CheckStatus.WARN if warned else CheckStatus.OK)
    assert check.mend == (f"chmod 600 {file}" if warned else "")


def test_a_secret_that_is_mounted_by_a_link_is_looked_at_itself(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("secret")
    (tmp_path / "data").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    [check] = check_secret_files([tmp_path / "link"])
    assert check.status is CheckStatus.OK
