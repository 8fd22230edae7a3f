"""Start-up gives way to those who serve already."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lastcall.runtime.start_up import LOW_PRIORITY, SESSION_PRIORITY, at_low_priority

from ..support.processes import run_server

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")


def own_priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux_only
def test_work_at_low_priority_gives_way_and_whoever_asked_for_it_keeps_its_own() -> None:
    before = own_priority()
    assert at_low_priority(own_priority) == max(before, LOW_PRIORITY)
    assert own_priority() == before


@pytest.mark.skipif(not SESSION_PRIORITY.exists(), reason="this kernel does not group processes by session")
def test_a_server_that_leads_its_session_has_the_session_give_way_and_takes_its_share_back() -> None:
    code = (
        "from lastcall.runtime.start_up import SESSION_PRIORITY, session_gives_way; take_back = session_gives_way();"
        " print(SESSION_PRIORITY.read_text()); take_back(); print(SESSION_PRIORITY.read_text())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in done.stdout.splitlines() if line] == [str(LOW_PRIORITY), "0"]


@pytest.mark.skipif(not SESSION_PRIORITY.exists(), reason="this kernel does not group processes by session")
def test_a_server_that_is_ready_has_its_whole_share_of_the_processor(database_url: str) -> None:
    with run_server("--agent", "echo", "--database-url", database_url, leads_session=True) as server:
        share = Path(f"/proc/{server.process.pid}/autogroup").read_text()
    assert share.split()[-1] == "0"


def test_what_the_work_raises_is_raised_where_it_was_asked_for() -> None:
    def fail() -> None:
        raise SystemExit(7)

    with pytest.raises(SystemExit, match="7"):
        at_low_priority(fail)


def test_a_start_imports_no_library_that_it_will_not_use() -> None:
    code = (
        "import sys; from lastcall.cli.serve import _import_server; _import_server();"
        " unused = {'rich', 'pygments', 'openai', 'lastcall.memory.extract', 'h2.connection', 'hpack', 'priority'};"
        " sys.exit(', '.join(unused & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_tables_can_still_be_drawn_after_a_start() -> None:
    code = (
        "from lastcall.runtime.start_up import import_structlog; import_structlog(); import_structlog();"
        " import rich.console, structlog; structlog.dev.ConsoleRenderer()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
