"""Strikes all scenarios at all their checkpoints in all kinds of ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..promises import Promise
from ..simulation.processes import workers
from ..simulation.run import escaped
from ..simulation.world import simulate
from .run import ScenarioRun
from .scenarios import SCENARIOS
from .strike import KINDS, Checkpoint, Kind, Strike

CHUNK_STRIKES = 16  # handed to a process at once


@dataclass(slots=True)
class Outcome:
    """The result of a run. strike: None in the run that counts checkpoints. struck_at: its time and task."""

    scenario: str
    strike: Strike | None
    checkpoints: list[Checkpoint] = field(default_factory=list)
    struck_at: tuple[float, str] | None = None
    broken: Counter[Promise] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Proof:
    """All results, by scenario. planned: strikes, by kind. broken: runs. reasons: why the subject's rows ended.

    promises: how often each was broken, in all scenarios.
    """

    seed: int
    checkpoints: dict[str, int] = field(default_factory=dict)
    planned: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    runs: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    reasons: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    promises: Counter[Promise] = field(default_factory=Counter)
    failing: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.reasons[outcome.scenario].update(outcome.reasons)
        self.promises.update(outcome.broken)
        if outcome.broken:
            self.broken[outcome.scenario] += 1
            self.failing.append(outcome)


def run_once(scenario: str, seed: int, strike: Strike | None = None, *, trace: bool = False) -> Outcome:
    """Runs a scenario once. Without a strike, it counts its checkpoints."""
    run, outcome = ScenarioRun(SCENARIOS[scenario], strike), Outcome(scenario, strike)
    try:
        world = simulate(seed, run.run)
    except Exception as error:  # noqa: BLE001 - what escapes a server is a finding
        promise, example = escaped(error)
        outcome.broken[promise] += 1
        outcome.examples.append(example)
        world = run.world
    findings = run.checks.findings
    outcome.broken += findings.broken
    outcome.examples += findings.examples
    outcome.reasons = Counter(row.end_reason or "active" for row in run.rows()) or Counter({"no row": 1})
    if strike is None:
        outcome.checkpoints = run.steps.checkpoints
    elif len(run.steps.checkpoints) >= strike.at:
        checkpoint = run.steps.checkpoints[strike.at - 1]
        outcome.struck_at = checkpoint.at, checkpoint.task
    if trace:
        outcome.trace = world.trace.render()
    return outcome


def strikes(counted: Outcome, seed: int, kinds: Sequence[Kind] = KINDS) -> Iterator[Strike]:
    """Yields every strike that has an effect, at each checkpoint of a scenario."""
    for at, checkpoint in enumerate(counted.checkpoints, start=1):
        for kind in kinds:
            if checkpoint.can(kind):
                yield Strike(counted.scenario, kind, at, seed)


def prove(
    names: Sequence[str] = tuple(SCENARIOS),
    *,
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    stride: int = 1,
    offset: int = 0,
    processes: int = 1,
    on_outcome: Callable[[Proof, Outcome, int], None] = lambda _proof, _outcome, _total: None,
) -> Proof:
    """Counts the checkpoints of the scenarios, then strikes at each of them.

    stride, offset: take only every `stride`-th strike, from that one on.
    on_outcome: called after each run, with the number of all runs.
    """
    proof, counted = Proof(seed), {name: run_once(name, seed) for name in names}
    planned = [strike for outcome in counted.values() for strike in strikes(outcome, seed, kinds)]
    planned = planned[offset % stride :: stride]
    for name, outcome in counted.items():
        proof.checkpoints[name] = len(outcome.checkpoints)
        proof.add(outcome)
    for strike in planned:
        proof.planned[strike.scenario][strike.kind] += 1
    for outcome in outcomes(planned, processes):
        _check_repeated(outcome, counted[outcome.scenario])
        proof.add(outcome)
        on_outcome(proof, outcome, len(planned) + len(names))
    return proof


def _check_repeated(outcome: Outcome, counted: Outcome) -> None:
    """A strike at another checkpoint than the one that was counted proves nothing."""
    assert outcome.strike is not None
    planned = counted.checkpoints[outcome.strike.at - 1]
    if outcome.struck_at != (planned.at, planned.task):
        outcome.broken[Promise.REPEATABLE] += 1
        outcome.examples.append(
            f"{Promise.REPEATABLE}: planned {planned.task} at {planned.at:.4f}, struck {outcome.struck_at}"
        )


def run_strike(strike: Strike) -> Outcome:
    return run_once(strike.scenario, strike.seed, strike)


def outcomes(planned: Sequence[Strike], processes: int) -> Iterator[Outcome]:
    """Yields outcomes as they come. With one processor, everything runs in this process."""
    if processes == 1:
        yield from map(run_strike, planned)
        return
    with workers(processes) as pool:
        yield from pool.imap_unordered(run_strike, planned, chunksize=CHUNK_STRIKES)
