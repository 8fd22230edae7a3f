"""Which instances count as dead: the rule, and how a watch measures their silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.runtime.host import ProcessState
from lastcall.sessions import death
from lastcall.sessions.death import (
    CONNECTION_GONE,
    DOUBT_SECONDS,
    GAP_SECONDS,
    LEASE_RAN_OUT,
    LEFT,
    PROCESS_GONE,
    Silence,
    Watch,
    cause_of_death,
)
from lastcall.store.records import Suspect

HERE, THERE = "boot-1/4026531836", "boot-2/4026531836"
LEASE_SECONDS, GONE_SECONDS = 10.0, 5.3
A_HAIR = 0.001  # seconds
LOOK_SECONDS = 0.5
GONE, LIVES, UNKNOWN = ProcessState

SUSPECT = Suspect(
    instance_id=UUID(int=1),
    host_id=THERE,
    pid=4711,
    process_started=1_000,
    lease_seconds=LEASE_SECONDS,
    gone=False,
    guard_gone=False,
    heartbeat=100.0,
)


# --- the rule


def test_an_instance_that_left_is_gone_however_recent_its_heartbeat() -> None:
    assert cause_of_death(replace(SUSPECT, gone=True), Silence(0.0, -inf), LIVES, GONE_SECONDS) == LEFT


@pytest.mark.parametrize(
    ("heartbeat", "guard", "process", "cause"),
    [
        pytest.param(0.0, -inf, GONE, PROCESS_GONE, id="its process is gone"),
        pytest.param(GONE_SECONDS, GONE_SECONDS, None, CONNECTION_GONE, id="its connection is gone elsewhere"),
        pytest.param(GONE_SECONDS - A_HAIR, GONE_SECONDS, None, None, id="a heartbeat went another way"),
        pytest.param(GONE_SECONDS, GONE_SECONDS - A_HAIR, None, None, id="its connection was there"),
        pytest.param(LEASE_SECONDS - A_HAIR, inf, LIVES, None, id="its process lives, cut off"),
        pytest.param(LEASE_SECONDS - A_HAIR, inf, UNKNOWN, None, id="its process may live, unseen"),
        pytest.param(LEASE_SECONDS, inf, LIVES, LEASE_RAN_OUT, id="its process lives, cut off for too long"),
        pytest.param(LEASE_SECONDS, inf, UNKNOWN, LEASE_RAN_OUT, id="its process may live, for too long"),
        pytest.param(LEASE_SECONDS - A_HAIR, -inf, None, None, id="silent, but connected"),
        pytest.param(LEASE_SECONDS, -inf, None, LEASE_RAN_OUT, id="silent for too long"),
        pytest.param(0.0, inf, None, None, id="heartbeats without a connection"),
    ],
)
def test_only_proof_or_the_end_of_the_lease_is_death(
    heartbeat: float, guard: float, process: ProcessState | None, cause: str | None
) -> None:
    assert cause_of_death(SUSPECT, Silence(heartbeat, guard), process, GONE_SECONDS) == cause


def test_it_is_the_suspects_own_lease_that_counts() -> None:
    patient = replace(SUSPECT, lease_seconds=60.0)
    assert cause_of_death(patient, Silence(59.0, -inf), None, GONE_SECONDS) is None
    assert cause_of_death(patient, Silence(60.0, -inf), None, GONE_SECONDS) == LEASE_RAN_OUT


# --- which process counts


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids that were looked for. None of them exists."""
    pids: list[int] = []

    def gone(pid: int, _started: int | None) -> ProcessState:
        pids.append(pid)
        return GONE

    monkeypatch.setattr(death, "process_state", gone)
    return pids


@pytest.mark.parametrize(
    ("suspects_host", "our_host", "cause"),
    [
        pytest.param(HERE, HERE, PROCESS_GONE, id="on the same host"),
        pytest.param(THERE, HERE, None, id="its pid means nothing on this host"),
        pytest.param(None, HERE, None, id="its host is not known"),
        pytest.param(None, None, None, id="neither host is known"),
        pytest.param(HERE, None, None, id="our host is not known"),
    ],
)
def test_a_missing_process_counts_only_on_the_host_where_it_ran(
    suspects_host: str | None, our_host: str | None, cause: str | None, asked: list[int]
) -> None:
    found = dict_of(Watch(our_host, GONE_SECONDS), replace(SUSPECT, host_id=suspects_host))
    assert found == ({SUSPECT.instance_id: cause} if cause else {})
    assert asked == ([SUSPECT.pid] if cause else [])


def dict_of(watch: Watch, *suspects: Suspect, at: float = 0.0) -> dict[UUID, str]:
    return {each.instance_id: cause for each, cause in watch.look(suspects, at, at)}


# --- how silence is measured


def died_at(look: Callable[[float], Suspect | None], *, until: float = 100.0) -> float | None:
    """Looks again and again, and returns when the suspect was found dead. No suspect: the look failed."""
    watch = Watch(HERE, GONE_SECONDS)
    at = 0.0
    while at < until:
        suspect = look(at)
        if suspect is None:
            watch.forget()
        elif dict_of(watch, suspect, at=at):
            return at
        at += LOOK_SECONDS
    return None


def test_silence_counts_from_when_it_was_seen_however_old_the_heartbeat() -> None:
    assert died_at(lambda _: replace(SUSPECT, heartbeat=-1e9)) == LEASE_SECONDS


def test_any_other_heartbeat_is_a_sign_of_life_also_an_earlier_one() -> None:
    """The database's clock is set back by an hour again and again."""
    assert died_at(lambda at: replace(SUSPECT, heartbeat=-3600.0 * (at // 9))) is None


def test_a_connection_that_comes_back_now_and_then_is_not_gone() -> None:
    assert died_at(lambda at: replace(SUSPECT, guard_gone=at % 5 != 0, lease_seconds=inf)) is None


def test_a_connection_that_is_gone_is_death_only_after_five_seconds() -> None:
    died = died_at(lambda at: replace(SUSPECT, guard_gone=at >= 20, heartbeat=min(at, 20)))
    assert died is not None
    assert 25 < died <= 26


def test_heartbeats_by_another_way_keep_an_instance_alive_without_its_connection() -> None:
    assert died_at(lambda at: replace(SUSPECT, guard_gone=True, heartbeat=at)) is None


def test_an_outage_gives_everybody_the_time_to_come_back() -> None:
    """Nothing is counted from before it: neither silence nor a connection that is gone."""
    outage, back = 4.0, 12.0
    died = died_at(lambda at: None if outage <= at < back else replace(SUSPECT, guard_gone=True))
    assert died == pytest.approx(back + GONE_SECONDS, abs=LOOK_SECONDS)


def test_two_looks_too_far_apart_are_no_observation() -> None:
    watch = Watch(HERE, GONE_SECONDS)
    dict_of(watch, replace(SUSPECT, guard_gone=True))
    late = 2 * LEASE_SECONDS
    assert dict_of(watch, replace(SUSPECT, guard_gone=True), at=late) == {}
    assert dict_of(watch, replace(SUSPECT, guard_gone=True), at=late + GAP_SECONDS) == {}


def test_an_answer_that_took_long_is_a_gap_as_well() -> None:
    watch = Watch(HERE, GONE_SECONDS)
    for at in range(int(LEASE_SECONDS)):
        dict_of(watch, SUSPECT, at=float(at))
    assert list(watch.look([SUSPECT], LEASE_SECONDS, LEASE_SECONDS + 2 * GAP_SECONDS)) == []


def test_a_silent_suspect_is_looked_at_more_often() -> None:
    watch, doubts = Watch(HERE, GONE_SECONDS), []
    for suspect, at in ((SUSPECT, 0.0), (SUSPECT, DOUBT_SECONDS), (replace(SUSPECT, heartbeat=101.0), DOUBT_SECONDS)):
        dict_of(watch, suspect, at=at)
        doubts.append(watch.in_doubt)
    assert doubts == [False, True, False]


@given(
    beats=st.lists(st.floats(0.0, 60.0), max_size=20),
    looks=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=60),
    cuts=st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.0, 20.0)), max_size=4),
)
def test_nobody_dies_before_so_much_silence_whatever_is_seen_when(
    beats: list[float], looks: list[float], cuts: list[tuple[float, float]]
) -> None:
    """Against the truth: the last heartbeat, and since when the connection has been gone."""
    watch, now = Watch(HERE, GONE_SECONDS), 0.0
    for pause in looks:
        now += pause
        last = max((beat for beat in beats if beat <= now), default=0.0)
        gone_since = min((begin for begin, lasts in cuts if begin <= now < begin + lasts), default=inf)
        seen = replace(SUSPECT, heartbeat=last, guard_gone=gone_since <= now)
        for cause in dict_of(watch, seen, at=now).values():
            least = GONE_SECONDS if cause == CONNECTION_GONE else LEASE_SECONDS
            assert now - last >= least
