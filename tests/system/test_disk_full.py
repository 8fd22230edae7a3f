"""A disk that is full, also where nobody writes: the server is not ready, and says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from lastcall.embedded import postgres as embedded
from lastcall.store.proof import FRESH_SECONDS

from ..support.processes import run_server
from ..support.waiting import eventually

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")]

DISK_MEGABYTES = 120
FILL = 1 << 20


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a small disk of its own, which PostgreSQL's user can reach."""
    disk = Path(f"/tmp/lastcall-disk-{os.getpid()}")
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    try:
        if mounted.returncode != 0:
            pytest.skip("no disk can be mounted here")
        disk.chmod(0o755)
        yield disk
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


async def test_an_idle_server_on_a_full_disk_is_not_ready_until_there_is_room(disk: Path) -> None:
    data = disk / "data"
    data.mkdir(mode=0o755)
    url = embedded.start(data)
    try:
        with run_server("--database-url", url, "--agent", "echo") as server:

            async def reason() -> str | None:
                async with httpx2.AsyncClient() as client:
                    reply: dict[str, str] = (await client.get(f"{server.url}/readyz")).json()
                return reply.get("reason")

            await eventually(reason, lambda found: found is None)
            fill(disk / "fill")
            said = await eventually(reason, bool, within=2 * FRESH_SECONDS + 1)
            assert said is not None
            assert said.startswith("no commit: ")
            assert said.endswith("No space left on device")
            (disk / "fill").unlink()
            await eventually(reason, lambda found: found is None, within=2 * FRESH_SECONDS + 1)
    finally:
        embedded.stop(data)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out:
        for size in (FILL, 4096):
            try:
                while out.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
