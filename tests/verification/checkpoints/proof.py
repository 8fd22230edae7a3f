"""All scenarios, all their checkpoints, all kinds of strikes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..simulation.clock import Stuck
from ..simulation.processes import workers
from ..simulation.world import simulate
from .run import Ending
from .scenarios import SCENARIOS
from .strike import KINDS, Kind, Moment, Strike

CHUNK_STRIKES = 16  # handed to a process at once


@dataclass(slots=True)
class Outcome:
    """What came of a run. strike: None in the run that only counts. moment: when and where it struck."""

    scenario: str
    strike: Strike | None
    moments: list[Moment] = field(default_factory=list)
    moment: tuple[float, str] | None = None
    broken: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Proof:
    """What was done and found, by scenario. planned: strikes, by kind. reasons: of the subject's rows."""

    seed: int
    checkpoints: dict[str, int] = field(default_factory=dict)
    planned: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    runs: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    reasons: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failing: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.reasons[outcome.scenario].update(outcome.reasons)
        if outcome.broken:
            self.broken[outcome.scenario] += 1
            self.failing.append(outcome)


def run_once(scenario: str, seed: int, strike: Strike | None = None, *, trace: bool = False) -> Outcome:
    """One run of a scenario. Without a strike, `moments` are its checkpoints."""
    ending, outcome = Ending(SCENARIOS[scenario], strike), Outcome(scenario, strike)
    try:
        world = simulate(seed, ending.run)
    except Exception as error:  # noqa: BLE001 - whatever got out of the servers is a finding
        promise = "I7 unbounded" if isinstance(error, Stuck) else "I8 contained"
        outcome.broken[promise] += 1
        outcome.examples.append(f"{promise}: {error!r}")
        world = ending.world
    findings = ending.watch.findings
    outcome.broken += findings.broken
    outcome.examples += findings.examples
    outcome.reasons = Counter(row.end_reason or "active" for row in ending.rows()) or Counter({"no row": 1})
    if strike is None:
        outcome.moments = ending.steps.moments
    elif len(ending.steps.moments) >= strike.at:
        moment = ending.steps.moments[strike.at - 1]
        outcome.moment = moment.at, moment.task
    if trace:
        outcome.trace = world.trace.render()
    return outcome


def strikes(counted: Outcome, seed: int, kinds: Sequence[Kind] = KINDS) -> Iterator[Strike]:
    """Every strike that changes anything, at each checkpoint of a scenario."""
    for at, moment in enumerate(counted.moments, start=1):
        for kind in kinds:
            if moment.can(kind):
                yield Strike(counted.scenario, kind, at, seed)


def prove(
    names: Sequence[str] = tuple(SCENARIOS),
    *,
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    stride: int = 1,
    offset: int = 0,
    processes: int = 1,
    told: Callable[[Proof, Outcome, int], None] = lambda _proof, _outcome, _total: None,
) -> Proof:
    """Counts the checkpoints of the scenarios, then strikes at each of them.

    stride, offset: only every so manieth strike, from that one on. told: called after each run, with the number of
    all runs.
    """
    proof, counted = Proof(seed), {name: run_once(name, seed) for name in names}
    planned = [strike for outcome in counted.values() for strike in strikes(outcome, seed, kinds)]
    planned = planned[offset % stride :: stride]
    for name, outcome in counted.items():
        proof.checkpoints[name] = len(outcome.moments)
        proof.add(outcome)
    for strike in planned:
        proof.planned[strike.scenario][strike.kind] += 1
    for outcome in outcomes(planned, processes):
        _check_moment(outcome, counted[outcome.scenario])
        proof.add(outcome)
        told(proof, outcome, len(planned) + len(names))
    return proof


def _check_moment(outcome: Outcome, counted: Outcome) -> None:
    """A strike at another moment than the one that was counted proves nothing."""
    assert outcome.strike is not None
    moment = counted.moments[outcome.strike.at - 1]
    if outcome.moment != (moment.at, moment.task):
        outcome.broken["unrepeatable"] += 1
        outcome.examples.append(f"unrepeatable: meant {moment.task} at {moment.at:.4f}, met {outcome.moment}")


def run_strike(strike: Strike) -> Outcome:
    return run_once(strike.scenario, strike.seed, strike)


def outcomes(planned: Sequence[Strike], processes: int) -> Iterator[Outcome]:
    """One after the other, as they come. A run on one processor stays in this process."""
    if processes == 1:
        yield from map(run_strike, planned)
        return
    with workers(processes) as pool:
        yield from pool.imap_unordered(run_strike, planned, chunksize=CHUNK_STRIKES)
