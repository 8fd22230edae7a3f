"""What is found in a data directory where PostgreSQL's files should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lastcall.embedded import cluster, folder
from lastcall.embedded.folder import Place
from lastcall.embedded.programs import EmbeddedError


def test_a_pipe_in_the_place_of_a_lock_is_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "postgresql.lock")
    with pytest.raises(EmbeddedError, match="is not a file of this user's"), folder.locked(Place(tmp_path)):
        pass


def test_a_file_left_in_the_place_of_a_new_cluster_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "owner_of_new_data", os.geteuid)
    monkeypatch.setattr(cluster, "run", lambda *_, **__: type("Answer", (), {"returncode": 0}))
    (tmp_path / "postgresql.new").touch()
    cluster.create(tmp_path / "postgresql", 0)
    assert (tmp_path / "postgresql").is_dir()
