"""Rounds of runs, in which the servers take turns."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import balancer
import load
import processes
from figures import Figure, Run
from machine import Cores, Noise, NoiseMeter
from peers import Peer
from progress import Progress

#: Runs of one kind without any figure after which a server is not asked again.
_TRIES = 2
#: An interval of a ratio that is wider than so much of the ratio is noise.
_WIDE = 0.1


class Step(NamedTuple):
    """One server, started for one run."""

    peer: Peer
    run: Run

    @property
    def key(self) -> tuple[str, Run]:
        """What it has in common with its likes in other rounds."""
        return self.peer.name, self.run


@dataclass
class Sample:
    """
    What the rounds brought for one figure of one server.

    :ivar values: one for each round that brought one.
    :ivar noise: what else the machine did, in each of these rounds.
    :ivar failed: sessions that failed, in all rounds.
    :ivar problem: why there are no values.
    """

    values: list[float] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    failed: int = 0
    problem: str = ""

    @property
    def median(self) -> float | None:
        """The figure; None: there is none."""
        return statistics.median(self.values) if self.values else None

    def beside(self, other: Sample) -> Ratio | None:
        """This one's values in times of *other*'s; None: a round is missing or too short to measure."""
        if not self.values or len(self.values) != len(other.values) or not all(other.values):
            return None
        ratios = sorted(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))
        low, high = interval(len(ratios))
        loud = any(noise.is_loud for noise in (*self.noise, *other.noise))
        return Ratio(statistics.median(ratios), ratios[low], ratios[high], loud)


class Ratio(NamedTuple):
    """
    What two samples say of each other.

    :ivar low: the lower end of the interval that holds the true median with a probability of 95 % or more;
        of few rounds, the lowest value. :attr:`high` is the upper end.
    :ivar loud: whether the machine did too much else.
    """

    median: float
    low: float
    high: float
    loud: bool

    @property
    def noisy(self) -> bool:
        """Whether the ratio may be another one in the next run."""
        return self.loud or self.high - self.low > _WIDE * self.median

    def __str__(self) -> str:
        noisy = ", NOISY" if self.noisy else ""
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}{noisy})"


def ratio_with_interval(values: Sequence[float]) -> str:
    """The median of the ratios *values* in words, with its interval and the number of rounds."""
    ratios = sorted(values)
    low, high = interval(len(ratios))
    return f"{statistics.median(ratios):.3f} ({ratios[low]:.3f} to {ratios[high]:.3f}, {len(ratios)} rounds)"


def interval(count: int) -> tuple[int, int]:
    """The positions in *count* sorted values between which their median is, with at least 95 %, or all."""
    tail = 0.0
    for low in range(count // 2):
        tail += math.comb(count, low) / 2**count
        if tail > 0.025:
            return max(low - 1, 0) if low else 0, count - 1 - max(low - 1, 0)
    return 0, count - 1


#: By the figure's name and the server's.
Results = dict[tuple[str, str], Sample]


class Measurement:
    """
    Measures.

    :param binary: the load generator.
    :param servers: who is compared.
    :param figures: what is measured.
    :param cores: on which cores.
    :param rounds: how often.
    :param scale: how much of each run to do; 1 is all.
    :ivar results: what is known so far.
    :ivar complete: rounds that are done.
    """

    def __init__(
        self,
        binary: Path,
        servers: Sequence[Peer],
        figures: Sequence[Figure],
        cores: Cores,
        rounds: int,
        scale: float = 1.0,
    ) -> None:
        self.results: Results = defaultdict(Sample)
        self.complete = 0
        self._binary = binary
        self._figures = figures
        self._cores = cores
        self._rounds = rounds
        self._scale = scale
        self._steps = list(_steps(servers, figures))
        self._seconds: dict[tuple[str, Run], float] = {}
        self._fruitless: dict[tuple[str, Run], int] = defaultdict(int)

    def run(self) -> None:
        """Measure all of it; an interrupt leaves what is known so far."""
        progress = Progress(self._rounds * len(self._steps))
        try:
            for number in range(self._rounds):
                self._round(number, progress)
                self.complete += 1
        finally:
            progress.close()

    def _round(self, number: int, progress: Progress) -> None:
        for position, step in enumerate(self._steps):
            what = f"round {number + 1} of {self._rounds}, {step.run.label}, {step.peer.name}"
            progress.begin(what, self._left(number, position))
            if self._fruitless[step.key] < _TRIES:
                began = time.monotonic()
                meter = NoiseMeter()
                outcome = self._measure(step)
                self._seconds[step.key] = time.monotonic() - began
                self._record(step, outcome, meter.heard(), progress)
            else:
                self._seconds[step.key] = 0
            progress.end()

    def _measure(self, step: Step) -> load.Outcome:
        peer, run = step
        arguments = run.arguments(self._scale, peer.socks4)
        try:
            with ExitStack() as stack:
                server = stack.enter_context(processes.start(peer, run.placing.server(self._cores), run.own))
                cpus, port = run.placing.load(self._cores), server.port
                if run.balancer:
                    port = stack.enter_context(balancer.start(server, run.balancer, cpus)).port
                return load.run(self._binary, arguments, port, server.process.pid, cpus)
        except processes.CannotStart as problem:
            return load.Outcome({}, f"does not start: {problem}")

    def _record(self, step: Step, outcome: load.Outcome, noise: Noise, progress: Progress) -> None:
        if not outcome.figures:
            self._fruitless[step.key] += 1
            if self._fruitless[step.key] == 1:
                progress.note(f"{step.peer.name}, {step.run.label}: {outcome.problem}")
        if outcome.failed:
            progress.note(f"{step.peer.name}, {step.run.label}: {outcome.failed} failed")
        for figure in self._figures:
            if figure.run == step.run:
                sample = self.results[figure.name, step.peer.name]
                sample.failed += outcome.failed
                sample.problem = sample.problem or outcome.problem
                if figure.key in outcome.figures:
                    sample.values.append(outcome.figures[figure.key])
                    sample.noise.append(noise)

    def _left(self, number: int, position: int) -> float | None:
        """Seconds from this step on; what has not been measured yet is taken for average."""
        if not self._seconds:
            return None
        average = statistics.mean(self._seconds.values())
        each = [self._seconds.get(step.key, average) for step in self._steps]
        return sum(each[position:]) + sum(each) * (self._rounds - number - 1)


def _steps(servers: Sequence[Peer], figures: Sequence[Figure]) -> Iterator[Step]:
    for run in dict.fromkeys(figure.run for figure in figures):
        for peer in servers:
            if peer.is_ours or not (run.only_ours or (peer.socks4 and run.mode == "udp")):
                yield Step(peer, run)
