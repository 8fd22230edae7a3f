"""`scripts/bench`: what it compares is the same, its load speaks WebSocket, its verdicts follow from its figures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.server import ServerConnection, serve
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.support.command_line import EXIT_INTERRUPTED, EXIT_USAGE, run
from tests.support.docs_tables import bounds as bounds_table
from tests.support.docs_tables import table_in

from ..support.command_line import EXIT_TOO_BUSY
from .bench.__main__ import ALONE, bench
from .bench.alone import QUICK
from .bench.answers import Answer, wanted_answer
from .bench.bounds import BOUNDS, judged, once
from .bench.checks import check_frames
from .bench.contestants import FLOOR, OURS, PEERS
from .bench.cpu import Meter, Usage
from .bench.framing import BadAnswer, close_frame, parse, pong_frame, text_frame
from .bench.load_client import open_load
from .bench.picture import draw
from .bench.report import result
from .bench.rounds import ROWS, Sample
from .bench.stalls import StallMeter
from .starvation import Failed

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"quick": False, "rounds": 2, "seconds": 1.0}
QUIET = Usage(wall=1.0, server=0.5, database=0.2, load=0.1, foreign=0.0, waited=0.0)
BUSY = QUIET._replace(waited=0.5)
QUICK_SECONDS = 300
ANSWER_SECONDS = 10.0


def quick_run(names: Sequence[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """The figures, and what was said on stderr."""
    command = [sys.executable, "-m", "tests.verification.bench", "--quick", "--json", *arguments]
    command += [word for name in names for word in ("--only", name)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=QUICK_SECONDS, check=False)
    assert answer.returncode in (0, EXIT_TOO_BUSY), answer.stderr  # other tests run beside it
    return json.loads(answer.stdout.splitlines()[-1]), answer.stderr


@pytest.mark.slow
def test_a_quick_run_compares_servers_that_say_the_same(tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    figures, said = quick_run(list(ROWS), "--picture", str(picture))
    assert "frames and rows checked" in said
    assert set(figures["rows"]) == set(ROWS)
    for by_name in figures["rows"].values():
        assert {OURS, *PEERS, FLOOR} <= set(by_name)
        assert all(each["per_second"] > 0 for each in by_name.values())
    assert {each["row"] for each in figures["bounds"]} == {bound.row for bound in BOUNDS} & set(ROWS)
    assert "session" in picture.read_text()


@pytest.mark.slow
def test_a_quick_run_measures_every_other_row() -> None:
    figures, _ = quick_run(ALONE)
    assert set(figures["scale"]) == set(ALONE)
    assert figures["scale"]["shutdown"]["close_codes"] == {"1012": QUICK.shutdown}
    assert {each["row"] for each in figures["bounds"]} == {bound.row for bound in BOUNDS} - set(ROWS)


@pytest.mark.slow
def test_a_run_that_is_interrupted_twice_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.verification.bench", "--quick", "--only", "turn"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    tmp_path.chmod(0o755)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        began = time.monotonic()
        while not (servers := servers_of(process.pid)) and time.monotonic() < began + QUICK_SECONDS:
            pass
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(QUICK_SECONDS) == EXIT_INTERRUPTED
    assert len(servers) == 1
    left = [each for each in servers if each.is_running()]
    for each in left:
        each.kill()
    assert left == []


def servers_of(pid: int) -> list[psutil.Process]:
    """Those that a process has started and that run."""
    found = []
    for each in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if "serve" in each.cmdline() else []
    return found


@pytest.mark.parametrize(
    "arguments", [["bench.gif"], ["no/such/folder/bench.svg"], ["bench.svg", "--only", "idle", "--only", "latency-1"]]
)
def test_a_picture_that_cannot_be_drawn_is_refused_at_once(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--picture", *arguments])
    assert run(bench, Failed) == EXIT_USAGE
    assert "--picture" in capsys.readouterr().err


def test_every_bound_belongs_to_a_row() -> None:
    assert {bound.row for bound in BOUNDS} <= {*ROWS, *ALONE}


SAID: list[dict[str, Any]] = [
    {"type": "conversation.item.done", "previous_item_id": None, "item": {"id": "a", "status": "completed"}},
    {"type": "response.done", "response": {"output": [{"id": "b"}], "usage": None, "expires_at": 1.5}},
]


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**each, **(changes if place == number else {})} for place, each in enumerate(SAID)]


def test_frames_with_other_ids_and_numbers_are_the_same() -> None:
    response = {"output": [{"id": "other"}], "usage": None, "expires_at": 7}
    check_frames({"one": SAID, "other": changed(1, response=response)})


@pytest.mark.parametrize(
    "said",
    [
        changed(0, type="conversation.item.added"),
        changed(0, item={"id": "a"}),
        changed(0, item={"id": "a", "status": "incomplete"}),
        changed(0, previous_item_id="x"),
        changed(1, response={"output": [], "usage": None, "expires_at": 1}),
        changed(1, response={"output": [{"id": "b"}], "usage": {}, "expires_at": 1}),
        changed(1, event_id="more"),
        SAID[::-1],
    ],
)
def test_a_frame_of_another_type_order_or_shape_is_refused(said: list[dict[str, Any]]) -> None:
    with pytest.raises(Failed, match=r"frame [01] differs"):
        check_frames({"one": SAID, "other": said})


def test_a_constant_frame_need_not_know_the_item_before() -> None:
    check_frames({"one": SAID, FLOOR: changed(0, previous_item_id="x")})


@given(st.text(max_size=2_000), st.binary(max_size=125))
def test_a_server_reads_every_frame_of_the_load(text: str, payload: bytes) -> None:
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(text_frame({"text": text}) + pong_frame(payload) + close_frame())
    said, pong, close = server.received_frames()
    assert json.loads(str(said.payload)) == {"text": text}
    assert (pong.opcode, pong.payload) == (Opcode.PONG, payload)
    assert (close.opcode, close.payload) == (Opcode.CLOSE, (1000, ""))


@given(st.lists(st.integers(0, 70_000), max_size=6), st.data())
def test_the_load_counts_every_frame_of_a_server_however_it_is_cut(sizes: list[int], data: st.DataObject) -> None:
    server = FrameProtocol(client=False, extensions=[])
    texts = ["x" * size for size in sizes]
    sent = bytes(b"".join(server.send_data(text, fin=True) for text in texts) + server.ping(b"there?"))
    cut = data.draw(st.integers(0, len(sent)))

    first = parse(sent[:cut])
    second = parse(first.rest + sent[cut:])

    assert first.texts + second.texts == len(texts)
    assert [*first.control, *second.control] == [(0x89, b"there?")]
    assert (second if second.texts else first).last.decode() == (texts[-1] if texts else "")
    assert second.rest == b""


def test_the_load_refuses_a_frame_that_it_could_not_count() -> None:
    with pytest.raises(BadAnswer, match="0x1"):
        parse(bytes(FrameProtocol(client=False, extensions=[]).send_data("the first half", fin=False)))


@contextmanager
def serving(handler: Callable[[ServerConnection], None]) -> Iterator[int]:
    """A server in a thread; its port."""
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def test_an_idle_connection_of_the_load_answers_pings() -> None:
    answered = threading.Event()

    def greet_and_ping(connection: ServerConnection) -> None:
        connection.send("session.created")
        connection.send("conversation.created")
        if connection.ping().wait(ANSWER_SECONDS):
            answered.set()
        for _ in connection:
            pass

    with serving(greet_and_ping) as port, open_load() as load:
        load.do("open", group="idle", port=port, count=1)
        assert answered.wait(ANSWER_SECONDS)
        load.do("close", group="idle")


@pytest.mark.parametrize("said", [["error"], ["response.done", "error"]])
def test_a_turn_with_other_frames_fails_the_run(said: list[str]) -> None:
    def greet_and_answer(connection: ServerConnection) -> None:
        connection.send("session.created")
        connection.send("conversation.created")
        for number, _ in enumerate(connection):
            for each in said if number % 2 else ():
                connection.send(json.dumps({"type": each}))

    with serving(greet_and_answer) as port, open_load() as load:

        def take_turns() -> None:
            for _ in range(2):  # a frame too many may come only after the first one
                load.do("turns", group="turns", question="?", frames=1, seconds=10, turns_max=1)

        load.do("open", group="turns", port=port, count=1)
        with pytest.raises(Failed, match=r"a turn ended with|frames too many|nobody waits for this"):
            take_turns()


@pytest.mark.parametrize("answer", [Answer(1), Answer(20), Answer(9_999, 10)])
def test_a_question_asks_for_its_answer(answer: Answer) -> None:
    assert wanted_answer(answer.question) == answer
    assert len(answer.pieces()) == answer.deltas


def test_a_stall_is_what_a_timer_is_late() -> None:
    meter = StallMeter(100.0)
    for now in (100.002, 100.504, 100.507):
        meter.woke(now)
    assert float(str(meter)) == pytest.approx(0.5)
    assert not meter.over(1.0)
    assert meter.over(0.5)


def sample(cpu_us: float, rate: float = 100.0, latency: float = 10.0, usage: Usage = QUIET) -> Sample:
    count = 100
    return Sample(count, count / rate, usage._replace(server=cpu_us * count / 1e6, database=0.0), [latency] * count)


def turns(ours: list[Sample], usage: Usage = QUIET) -> dict[str, dict[str, list[Sample]]]:
    """In the first round, FastAPI is the better peer; in the second, the other one."""
    fastapi, websockets = PEERS
    return {
        "turn": {
            OURS: ours,
            fastapi: [sample(300, 100, 30, usage), sample(900, 100, 90, usage)],
            websockets: [sample(600, 80, 60, usage), sample(600, 125, 60, usage)],
            FLOOR: [sample(100, 1_000, 1, usage)] * 2,
        }
    }


def test_ratios_are_taken_within_a_round_against_the_better_peer() -> None:
    figures = {each["title"]: each for each in judged(turns([sample(100, 200, 10), sample(150, 500, 10)]), {})}
    cpu, rate = figures["CPU of a turn, 1 delta"], figures["turns a second"]
    assert (cpu["measured"], cpu["range"], cpu["verdict"]) == (3.5, [3.0, 4.0], "must")
    assert (rate["measured"], rate["range"], rate["verdict"]) == (3.0, [2.0, 4.0], "must")
    assert figures["server CPU of a turn against the floor"]["range"] == [1.0, 1.5]
    assert figures["p99 of a turn, 64 clients"]["range"] == [3.0, 6.0]


def test_a_latency_is_a_multiple_of_the_better_peer() -> None:
    samples = {"latency-1": turns([sample(100, latency=15), sample(100, latency=120)])["turn"]}
    (p50,) = judged(samples, {})
    assert (p50["range"], p50["measured"], p50["verdict"]) == ([0.5, 2.0], 1.25, "must")


@pytest.mark.parametrize(("value", "verdict"), [(15.0, "goal"), (15.1, "must"), (22.0, "must"), (22.1, "missed")])
def test_a_bound_has_a_goal_and_a_must(value: float, verdict: str) -> None:
    (bound,) = (each for each in BOUNDS if each.row == "idle")
    assert bound.verdict(once(value)) == verdict
    assert judged({}, {"idle": {"kib_each": value}})[0]["verdict"] == verdict


@pytest.mark.parametrize(
    ("kib", "usage", "ok", "too_busy"),
    [(15.0, QUIET, True, False), (30.0, QUIET, False, False), (15.0, BUSY, False, True), (30.0, BUSY, False, True)],
)
def test_a_busy_machine_is_told_from_a_bound_that_was_missed(
    kib: float, usage: Usage, ok: bool, too_busy: bool
) -> None:
    figures = result({}, {"idle": {"kib_each": kib}}, {"idle": usage}, OPTIONS)
    assert (figures["ok"], figures["too_busy"]) == (ok, too_busy)
    assert result({}, {"idle": {"kib_each": kib}}, {"idle": usage}, {**OPTIONS, "quick": True})["ok"]


def test_a_load_that_costs_more_than_the_server_is_named() -> None:
    figures = result(turns([sample(100)] * 2, QUIET._replace(load=0.02)), {}, {}, OPTIONS)
    assert figures["load_bound"] == [f"turn / {OURS}", f"turn / {FLOOR}"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process its processors")
def test_processor_time_is_that_of_children_too_and_a_neighbour_is_foreign() -> None:
    """A child works while its parent waits; then the parent alone is measured, and a process of nobody's works."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"  # more than is asked for: ticks of 10 ms miss some
    parent = f"""
import subprocess, sys
subprocess.run([sys.executable, '-c', {burn!r}])
print('over', flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter, began = Meter(process.pid, 0), time.monotonic()
        while (mine := meter.usage()).server < 0.2 and time.monotonic() < began + ANSWER_SECONDS:
            pass
        assert process.stdout is not None
        assert process.stdout.readline() == b"over\n"
        meter = Meter(process.pid, 0)
        subprocess.run([sys.executable, "-c", burn], check=True)
        other = meter.usage()
        process.communicate(b"\n")
    assert mine.server >= 0.2
    assert other.server < 0.1
    assert other.foreign >= 0.1


def test_a_picture_shows_whoever_was_measured(tmp_path: Path) -> None:
    figures = result(turns([sample(100)] * 2), {}, {}, OPTIONS)
    for name in ("once.svg", "again.svg"):
        draw(figures, tmp_path / name)
    assert (tmp_path / "once.svg").read_text() == (tmp_path / "again.svg").read_text()


def test_the_page_has_the_bounds() -> None:
    """Where this fails, `python -m tests.support.docs_tables` writes the table anew."""
    assert table_in("performance.md", "bounds") == bounds_table()
