"""The states of workers, by table and clock: see :mod:`socksproxy.workers.states`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from socksproxy.workers.states import (
    FAILED_STARTS,
    KILL_TIMEOUT,
    LONGEST_DELAY,
    PROVED,
    RELOAD_TIMEOUT,
    START_TIMEOUT,
    STOP_TIMEOUT,
    Ending,
    GroupState,
    Worker,
    WorkerGroup,
    WorkerState,
)

KILLED = Ending("signal SIGKILL")
LEFT = Ending("exit status 0", orderly=True)


class FakeProcess:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.pid = 4321
        self.asked: list[str] = []
        self.can_be_told = True

    def reload(self) -> bool:
        self.asked.append("reload")
        return self.can_be_told

    def drain(self) -> None:
        self.asked.append("drain")

    def end(self) -> None:
        self.asked.append("end")

    def kill(self) -> None:
        self.asked.append("kill")


class Setting:
    """One worker's machine, and what it does. It is the worker's owner."""

    def __init__(self, drain: float = 0.0) -> None:
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.told: list[str] = []
        self.worker = Worker(1, self.clock, self.spawn, self, drain)

    def spawn(self, worker: Worker) -> FakeProcess:
        assert worker is self.worker
        self.processes.append(FakeProcess())
        return self.processes[-1]

    def worker_ready(self, worker: Worker) -> None:
        self.told.append("ready")

    def worker_settled(self, worker: Worker) -> None:
        self.told.append("settled")

    def worker_failed(self, worker: Worker, ending: Ending) -> None:
        self.told.append(f"failed: {ending.how}")

    def worker_died(self, worker: Worker, ending: Ending) -> None:
        # Its column is to be cleared before another process writes in it.
        assert len(self.processes) == self.told.count("died") + 1
        self.told.append("died")

    def worker_stopped(self, worker: Worker) -> None:
        self.told.append("stopped")

    # Ways into the states.

    def idle(self) -> None:
        """Nothing has happened yet."""

    def starting(self) -> None:
        self.worker.start()

    def running(self) -> None:
        self.starting()
        self.worker.ready()

    def reloading(self) -> None:
        self.running()
        self.worker.reload()

    def leaving(self) -> None:
        self.reloading()
        self.worker.not_reloaded()

    def backing_off(self) -> None:
        self.running()
        self.worker.ended(KILLED)

    def stopping(self) -> None:
        self.running()
        self.worker.drain()

    def stopped(self) -> None:
        self.stopping()
        self.worker.ended(LEFT)


STATES = ["idle", "starting", "running", "reloading", "leaving", "backing_off", "stopping", "stopped"]

#: For each state and input the next state; where there is none, nothing changes.
NEXT = {
    ("idle", "start"): "starting",
    ("idle", "drain"): "stopped",
    ("idle", "end"): "stopped",
    ("starting", "ready"): "running",
    ("starting", "ended"): "backing_off",
    ("starting", "drain"): "stopping",
    ("starting", "end"): "stopping",
    ("running", "reload"): "reloading",
    ("running", "ended"): "backing_off",
    ("running", "drain"): "stopping",
    ("running", "end"): "stopping",
    ("reloading", "reloaded"): "running",
    ("reloading", "not_reloaded"): "leaving",
    ("reloading", "late"): "leaving",
    ("reloading", "ended"): "backing_off",
    ("reloading", "drain"): "stopping",
    ("reloading", "end"): "stopping",
    ("leaving", "ended"): "backing_off",
    ("leaving", "drain"): "stopping",
    ("leaving", "end"): "stopping",
    ("backing_off", "retry"): "starting",
    ("backing_off", "drain"): "stopped",
    ("backing_off", "end"): "stopped",
    ("stopping", "ended"): "stopped",
}


@pytest.mark.parametrize(
    "input",
    [
        *("start", "ready", "ended", "late", "retry", "drain", "end"),
        *("reload", "reloaded", "not_reloaded"),
    ],
)
@pytest.mark.parametrize("state", STATES)
def test_every_input_in_every_state(state: str, input: str) -> None:
    """Nothing that may happen finds the machine without an answer."""
    setting = Setting()
    getattr(setting, state)()
    assert setting.worker.state.name.lower() == state
    getattr(setting.worker, input)(*([KILLED] if input == "ended" else []))
    assert setting.worker.state.name.lower() == NEXT.get((state, input), state)


@pytest.mark.parametrize("state", STATES)
def test_no_timer_is_left(state: str) -> None:
    """A supervisor that has stopped its workers has nothing to do any more."""
    setting = Setting()
    getattr(setting, state)()
    setting.worker.end()
    setting.worker.ended(KILLED)
    assert setting.worker.state is WorkerState.STOPPED
    assert setting.clock.getDelayedCalls() == []
    assert setting.told.count("stopped") == 1


def test_restarts_at_once() -> None:
    """The first time a worker dies, nobody waits for another."""
    setting = Setting()
    setting.running()
    setting.worker.ended(KILLED)
    setting.clock.advance(0)
    assert len(setting.processes) == 2
    assert setting.told == ["ready", "died"]


def died_again(setting: Setting) -> float:
    """Let the worker die, and return how many seconds pass before another starts."""
    before = len(setting.processes)
    setting.worker.ended(KILLED)
    (timer,) = setting.clock.getDelayedCalls()
    delay = timer.getTime() - setting.clock.seconds()
    setting.clock.advance(delay)
    assert len(setting.processes) == before + 1
    return float(delay)


def test_backs_off() -> None:
    """A worker that dies again and again costs less and less."""
    setting = Setting()
    setting.starting()
    delays = [died_again(setting) for _ in range(12)]
    assert delays[:6] == [0, 0.25, 0.5, 1, 2, 4]
    assert delays[-1] == LONGEST_DELAY
    assert delays == sorted(delays)


@pytest.mark.parametrize(("lived", "delay"), [(PROVED, 0), (PROVED - 0.1, 1)])
def test_proves_itself(lived: float, delay: float) -> None:
    """What happened before a worker ran for a while is forgotten, and not before."""
    setting = Setting()
    setting.starting()
    for _ in range(3):
        died_again(setting)
    setting.worker.ready()
    setting.clock.advance(lived)
    assert died_again(setting) == delay


def test_orderly_end_is_no_failure() -> None:
    """A worker that was told to end by its own SIGTERM is replaced, and not held against."""
    setting = Setting()
    setting.running()
    for _ in range(5):
        setting.worker.ended(LEFT)
        setting.clock.advance(0)
        setting.worker.ready()
    assert len(setting.processes) == 6
    assert setting.worker.failures == 0


def test_slow_start_is_killed() -> None:
    """A worker that hangs at its start is one that failed."""
    setting = Setting()
    setting.starting()
    setting.clock.advance(START_TIMEOUT - 1)
    assert setting.processes[0].asked == []
    setting.clock.advance(1)
    assert setting.processes[0].asked == ["kill"]
    setting.worker.ended(KILLED)
    assert setting.told == ["died", "failed: signal SIGKILL"]


def test_no_process_can_be_had() -> None:
    """A system that has no room for another process may have it later."""
    setting = Setting()

    def spawn(worker: Worker) -> FakeProcess:
        setting.worker.spawn = setting.spawn
        raise OSError(11, "Resource temporarily unavailable")

    setting.worker.spawn = spawn
    setting.worker_died = lambda worker, ending: setting.told.append(ending.how)  # type: ignore[method-assign]
    setting.starting()
    assert setting.told == ["Resource temporarily unavailable", "failed: Resource temporarily unavailable"]
    setting.clock.advance(0)
    assert setting.worker.state is WorkerState.STARTING
    assert len(setting.processes) == 1


def test_ready_in_time_is_not_killed() -> None:
    """The limit for starting does not hold for what comes then."""
    setting = Setting()
    setting.running()
    setting.clock.advance(10 * START_TIMEOUT)
    assert setting.processes[0].asked == []


def test_drains() -> None:
    """The sessions have their time, and a little more; then the process is killed."""
    setting = Setting(drain=100)
    setting.running()
    setting.worker.drain()
    setting.clock.advance(100 + STOP_TIMEOUT - 1)
    assert setting.processes[0].asked == ["drain"]
    setting.clock.advance(1)
    assert setting.processes[0].asked == ["drain", "kill"]


def test_ends_at_once() -> None:
    """Who will not wait for the sessions does not wait for a worker that hangs."""
    setting = Setting(drain=100)
    setting.running()
    setting.worker.drain()
    setting.worker.end()
    assert setting.processes[0].asked == ["drain", "end"]
    setting.clock.advance(KILL_TIMEOUT)
    assert setting.processes[0].asked == ["drain", "end", "kill"]


def test_no_restart_while_stopping() -> None:
    """A worker that dies while all end is not replaced."""
    setting = Setting()
    setting.stopping()
    setting.worker.ended(KILLED)
    setting.clock.advance(2 * LONGEST_DELAY)
    assert len(setting.processes) == 1
    assert setting.told == ["ready", "died", "stopped"]


# Another configuration.


def test_goes_over() -> None:
    """A worker that has gone over has all the time there is, and tells when it has."""
    setting = Setting()
    setting.reloading()
    assert setting.worker.serves
    assert setting.processes[0].asked == ["reload"]
    assert setting.told == ["ready"]
    setting.worker.reloaded()
    setting.clock.advance(10 * RELOAD_TIMEOUT)
    assert setting.told == ["ready", "settled"]
    assert setting.processes[0].asked == ["reload"]


def test_goes_over_once_it_is_ready() -> None:
    """A worker that was started with the configuration of before hears of the new one as soon as it can."""
    setting = Setting()
    setting.starting()
    setting.worker.reload()
    assert setting.processes[0].asked == []
    setting.worker.ready()
    assert setting.worker.state is WorkerState.RELOADING
    setting.worker.reloaded()
    assert setting.told == ["ready", "settled"]


def test_starts_with_what_is_in_force() -> None:
    """One that is started after the change knows it already."""
    setting = Setting()
    setting.starting()
    setting.worker.reload()
    setting.worker.ended(KILLED)
    setting.clock.advance(0)
    setting.worker.ready()
    assert setting.worker.state is WorkerState.RUNNING
    assert setting.processes[1].asked == []


def test_goes_over_once_more() -> None:
    """What has changed meanwhile is told, too, before it counts as settled."""
    setting = Setting()
    setting.reloading()
    setting.worker.reload()
    assert setting.processes[0].asked == ["reload"]
    setting.worker.reloaded()
    assert setting.worker.state is WorkerState.RELOADING
    assert setting.processes[0].asked == ["reload", "reload"]
    setting.worker.reloaded()
    assert setting.told == ["ready", "settled"]


@pytest.mark.parametrize("why", ["says so", "cannot be told", "is late"])
def test_another_takes_its_place(why: str) -> None:
    """A worker that does not go over lets its sessions finish, and is replaced."""
    setting = Setting(drain=100)
    setting.running()
    setting.processes[0].can_be_told = why != "cannot be told"
    setting.worker.reload()
    if why == "says so":
        setting.worker.not_reloaded()
    elif why == "is late":
        setting.clock.advance(RELOAD_TIMEOUT)
    assert setting.worker.state is WorkerState.LEAVING
    assert not setting.worker.serves
    assert setting.processes[0].asked == ["reload", "drain"]
    assert setting.told == ["ready", "settled"]
    setting.worker.ended(LEFT)
    setting.clock.advance(0)
    setting.worker.ready()
    assert setting.worker.state is WorkerState.RUNNING  # type: ignore[comparison-overlap]
    assert setting.told == ["ready", "settled", "died", "ready"]


def test_hangs_while_it_leaves() -> None:
    """One that hangs has the time that its sessions have, and a little more."""
    setting = Setting(drain=100)
    setting.leaving()
    setting.clock.advance(100 + STOP_TIMEOUT)
    assert setting.processes[0].asked == ["reload", "drain", "kill"]
    setting.worker.ended(KILLED)
    setting.clock.advance(0)
    assert len(setting.processes) == 2


# All workers.


class All:
    """Three workers and the machine for all of them. It is their owner."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.processes: dict[int, FakeProcess] = {}
        self.told: list[str] = []
        self.workers = [Worker(number, self.clock, self.spawn, self) for number in (1, 2, 3)]
        self.group = WorkerGroup(
            self.workers, self.teller("started"), self.told.append, self.teller("stopped")
        )

    def teller(self, word: str) -> Callable[[], None]:
        return lambda: self.told.append(word)

    def spawn(self, worker: Worker) -> FakeProcess:
        self.processes[worker.number] = FakeProcess()
        return self.processes[worker.number]

    def worker_ready(self, worker: Worker) -> None:
        self.group.one_ready()

    def worker_settled(self, worker: Worker) -> None:
        pass

    def worker_failed(self, worker: Worker, ending: Ending) -> None:
        self.group.one_failed(ending)

    def worker_died(self, worker: Worker, ending: Ending) -> None:
        pass

    def worker_stopped(self, worker: Worker) -> None:
        self.group.one_stopped()

    def idle(self) -> None:
        """Nothing has happened yet."""

    def starting(self) -> None:
        self.group.start()

    def running(self) -> None:
        self.starting()
        for worker in self.workers:
            worker.ready()

    def draining(self) -> None:
        self.running()
        self.group.drain()

    def stopped(self) -> None:
        self.draining()
        for worker in self.workers:
            worker.ended(LEFT)


GROUP_NEXT = {
    ("idle", "start"): "starting",
    ("idle", "drain"): "stopped",
    ("idle", "end"): "stopped",
    ("starting", "drain"): "draining",
    ("starting", "end"): "draining",
    ("running", "drain"): "draining",
    ("running", "end"): "draining",
}


@pytest.mark.parametrize(
    "input",
    [
        *("start", "one_ready", "one_failed", "one_stopped", "reload", "drain", "end"),
    ],
)
@pytest.mark.parametrize("state", ["idle", "starting", "running", "draining", "stopped"])
def test_every_input_in_every_state_of_all(state: str, input: str) -> None:
    """Nothing that may happen to them finds the machine without an answer."""
    everybody = All()
    getattr(everybody, state)()
    assert everybody.group.state.value == state
    getattr(everybody.group, input)(*([KILLED] if input == "one_failed" else []))
    assert everybody.group.state.value == GROUP_NEXT.get((state, input), state)


def test_started_when_all_are_ready() -> None:
    """Clients are told of when every worker serves, and once."""
    everybody = All()
    everybody.starting()
    everybody.workers[0].ready()
    everybody.workers[1].ready()
    assert everybody.told == []
    everybody.workers[2].ready()
    everybody.workers[2].ended(KILLED)
    everybody.clock.advance(0)
    everybody.workers[2].ready()
    assert everybody.told == ["started"]


def test_started_though_one_died_meanwhile() -> None:
    """One that has died since does not keep the others from being told of."""
    everybody = All()
    everybody.starting()
    everybody.workers[0].ready()
    everybody.workers[0].ended(KILLED)
    everybody.workers[1].ready()
    everybody.workers[2].ready()
    assert everybody.told == ["started"]


def fail(everybody: All, times: int) -> None:
    """So many starts fail, of one worker after the other."""
    for turn in range(times):
        everybody.clock.advance(LONGEST_DELAY)
        everybody.workers[turn % 3].ended(KILLED)


def test_gives_up() -> None:
    """When every start fails, all is over, with the reason of the last one."""
    everybody = All()
    everybody.starting()
    fail(everybody, FAILED_STARTS - 1)
    assert everybody.told == []
    fail(everybody, FAILED_STARTS)
    for worker in everybody.workers:
        worker.ended(KILLED)
    assert everybody.told == [
        "no worker becomes ready; the last one ended with signal SIGKILL",
        "stopped",
    ]


def test_does_not_give_up_while_one_runs() -> None:
    """Clients of a worker that serves do not pay for one that cannot start."""
    everybody = All()
    everybody.running()
    for _ in range(3 * FAILED_STARTS):
        everybody.workers[0].ended(KILLED)
        everybody.clock.advance(LONGEST_DELAY)
    assert everybody.told == ["started"]
    assert everybody.group.state is GroupState.RUNNING


def test_all_go_over() -> None:
    """Each of them is told, unless it is about to start anew; and goes on to count as one that serves."""
    everybody = All()
    everybody.running()
    everybody.workers[0].ended(KILLED)
    everybody.group.reload()
    assert [everybody.processes[number].asked for number in (1, 2, 3)] == [[], ["reload"], ["reload"]]
    for _ in range(FAILED_STARTS):
        everybody.clock.advance(1)
        everybody.workers[0].ended(KILLED)
    assert everybody.group.state is GroupState.RUNNING


def test_counts_failures_in_a_row() -> None:
    """A start that succeeds shows that starting is possible."""
    everybody = All()
    everybody.starting()
    for _ in range(3):
        fail(everybody, FAILED_STARTS - 1)
        everybody.clock.advance(LONGEST_DELAY)
        everybody.workers[1].ready()
        everybody.workers[1].ended(KILLED)
    assert everybody.told == []


def test_stopped_when_all_are() -> None:
    """The end of the last one is the end."""
    everybody = All()
    everybody.draining()
    everybody.workers[2].ended(LEFT)
    everybody.workers[0].ended(LEFT)
    assert everybody.told == ["started"]
    everybody.workers[1].ended(LEFT)
    assert everybody.told == ["started", "stopped"]


def test_second_signal_reaches_all() -> None:
    """After it no worker waits for its sessions."""
    everybody = All()
    everybody.draining()
    everybody.group.end()
    assert {tuple(process.asked) for process in everybody.processes.values()} == {("drain", "end")}


def test_silence() -> None:
    """A worker that serves and is silent is killed, but not one that still reads a configuration."""
    setting = Setting()
    setting.reloading()
    setting.clock.advance(RELOAD_TIMEOUT / 2)
    assert setting.worker.check(30)
    setting.worker.reloaded()
    setting.clock.advance(30)
    assert setting.worker.check(30)
    setting.worker.beat(0)
    setting.clock.advance(30.5)
    assert not setting.worker.check(30)
    assert setting.processes[0].asked == ["reload", "kill"]
