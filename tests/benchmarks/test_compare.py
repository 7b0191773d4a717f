"""Measuring: what is run, what is counted, and what is written about it."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

import figures
import load
import machine
import peers
import plot
import report
import syscalls
from figures import FIGURES, Figure, Run
from measure import Measurement, Results, Sample
from peers import OURS, Peer
from progress import Progress, clock

from ..support.benchmarks import run
from ..support.origin import Origin
from ..support.programs import require

RATE = Run("rate", 2, 10)
HIGH = Figure("high", "More of it", "per second", RATE, "per_s", True, "chart")
LOW = Figure("low", "Less of it", "µs", RATE, "p50us", False, "chart")


def a_peer(name: str, command: Sequence[str] = ()) -> Peer:
    """A server that *command* starts."""
    return Peer(name, "", lambda binary, port, directory: list(command), "1.0")


# The whole of it.

# All that is there for every server, and what only ours is asked; UDP and workers have tests of their own.
# One configuration stands for all of a governed server's, and HAProxy need not be here.
TRIED = [
    figure.name
    for figure in FIGURES
    if figure.run.mode != "udp"
    and not figure.name.startswith("worker")
    and figure.run.named in ("", "open", "allpassword")
    and not figure.run.balancer
]


def test_without_haproxy_its_figures_have_a_reason(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left out, and the others are measured."""
    monkeypatch.setattr(peers, "which", lambda program: None)
    wanted = figures.named(["balanced", "proxy"])
    measurement = Measurement(generator, [peers.ours()], wanted, machine.cores(), 1, 0.001)
    measurement.run()
    for figure in wanted:
        sample = measurement.results[figure.name, OURS]
        assert sample.median is None
        assert sample.problem == "does not start: haproxy is not here"


def test_rounds_too_short_to_measure_have_no_ratio() -> None:
    assert Sample([1.0, 2.0]).beside(Sample([0.0, 1.0])) is None


def test_a_ratio_has_an_interval_and_tells_of_noise() -> None:
    """Of rounds that agree on a quiet machine it is no noise; of others it is marked."""
    quiet, loud = machine.Noise(0.5, 0.0), machine.Noise(0.5, 0.2)
    bare = Sample([100.0, 200.0, 100.0], [quiet] * 3)
    ratio = Sample([90.0, 182.0, 92.0], [quiet] * 3).beside(bare)
    assert str(ratio) == "0.910 (0.900 to 0.920)"
    assert str(Sample([90.0, 182.0, 92.0], [quiet, loud, quiet]).beside(bare)).endswith(", NOISY)")
    assert str(Sample([90.0, 182.0, 140.0], [quiet] * 3).beside(bare)).endswith(", NOISY)")
    assert Sample([90.0]).beside(bare) is None


def test_one_command_measures_and_writes(generator: Path, tmp_path: Path) -> None:
    """A small run of all that can be measured: no session fails, and tables and pictures come of it."""
    said = run(
        "compare.py",
        *("--modes", ",".join(TRIED), "--peers", "none", "--rounds", "1", "--scale", "0.002"),
        *("--output", tmp_path, "--json", tmp_path / "json"),
    )
    assert said.returncode == 0, said.stderr
    for name in TRIED:
        lines = [line for line in said.stdout.splitlines() if line.split()[0] == name]
        assert len(lines) == 1, said.stdout
        assert f"{OURS} none" not in lines[0]
        assert "failed" not in lines[0]
    text = (tmp_path / "performance-results.rst").read_text("utf-8")
    assert all(figure.title in text for figure in FIGURES if figure.name in TRIED)
    assert "failed" not in text
    assert "``python benchmarks/compare.py --modes" in text
    for picture in ("connections", "echoes", "bulk", "memory"):
        file = f"performance-{picture}.svg"
        assert f".. image:: {file}" in text
        assert OURS in "".join(ElementTree.parse(tmp_path / file).getroot().itertext())
    assert f'"rate64, {OURS}"' in (tmp_path / "json").read_text("utf-8")


def test_system_calls(generator: Path, tmp_path: Path) -> None:
    """The system calls of a session are counted, and the engine makes fewer of them."""
    require("strace")
    said = run(
        "compare.py", "--modes", "connections", "--peers", "none", "--sessions", "30", "--output", tmp_path
    )
    assert said.returncode == 0, said.stderr
    counts = dict(line.rsplit(": ", 1) for line in said.stdout.splitlines())
    before, after = (float(counts[name].split()[0]) for name in (syscalls.BEFORE, syscalls.AFTER))
    assert 5 < after < before
    assert "``connect``" in (tmp_path / "performance-syscalls.rst").read_text("utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("--modes", "rate65"),
        ("--peers", "nobody"),
        ("--peer", "nobody=/bin/true"),
        ("--peer", "3proxy=/none"),
    ],
)
def test_wrong_words(words: Sequence[str]) -> None:
    """What there is not is said in one line, and nothing is measured."""
    said = run("compare.py", *words)
    assert said.returncode == 2
    assert words[1].rpartition("=")[2] in said.stderr
    assert "Traceback" not in said.stderr


# The load generator.


def test_failed_sessions_are_counted(generator: Path) -> None:
    """Where nobody listens, every session has failed."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        outcome = load.run(generator, ["rate", "-c", "2", "-n", "5"], nobody.getsockname()[1])
    assert outcome.failed == 5
    assert outcome.figures["ok"] == 0


def refuse(sock: socket.socket) -> None:
    """A SOCKS5 server that grants nothing."""
    sock.recv(3)
    sock.sendall(b"\x05\x00")
    sock.recv(100)
    sock.sendall(b"\x05\x05\x00\x01" + bytes(6))


def echo_too_much(sock: socket.socket) -> None:
    """A SOCKS5 server that grants all, and then answers with a byte more than it should."""
    sock.recv(3)
    sock.sendall(b"\x05\x00")
    sock.recv(10)
    sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
    size = 0
    while size < 16 + 64:
        size += len(sock.recv(100))
    sock.sendall(bytes(65))


@pytest.mark.parametrize("server", [refuse, echo_too_much])
def test_wrong_answers_are_failures(generator: Path, server: object) -> None:
    """A refusal is a failure, and so is an echo that is not one."""
    assert callable(server)
    with Origin(server) as origin:
        outcome = load.run(generator, ["rate", "-n", "3"], origin.port)
    assert outcome.failed == 3


def test_refused_association(generator: Path) -> None:
    """Nothing to measure is told apart from a bad figure."""

    def server(sock: socket.socket) -> None:
        sock.recv(3)
        sock.sendall(b"\x05\x00")
        sock.recv(10)
        sock.sendall(b"\x05\x07\x00\x01" + bytes(6))

    with Origin(server) as origin:
        outcome = load.run(generator, ["udp", "-n", "3"], origin.port)
    assert outcome == load.Outcome({}, "ASSOCIATE refused with 7")


@pytest.mark.parametrize("arguments", [["rate"], ["down", "-b", "100000"], ["up", "-b", "100000"], ["rtt"]])
def test_without_a_proxy(generator: Path, arguments: list[str]) -> None:
    """The generator and its own origin understand each other; -D needs no port, and 0 is none."""
    outcome = load.run(generator, [*arguments, "-D", "-c", "2", "-n", "4"], 0)
    assert outcome.failed == 0
    assert outcome.problem == ""


# Rounds.


def measured(generator: Path, peer: Peer, rounds: int) -> Results:
    measurement = Measurement(generator, [peer], [HIGH, LOW], machine.cores(), rounds)
    measurement.run()
    assert measurement.complete == rounds
    return measurement.results


def test_each_round_brings_a_value(generator: Path) -> None:
    """One run serves several figures."""
    results = measured(generator, peers.ours(), 2)
    assert [len(results[name, OURS].values) for name in ("high", "low")] == [2, 2]
    assert all(value > 0 for sample in results.values() for value in sample.values)


def test_a_server_that_does_not_start(generator: Path) -> None:
    """Its own last words are the reason."""
    complain = [sys.executable, "-c", "raise SystemExit('there is no option --workers')"]
    results = measured(generator, a_peer("broken", complain), 3)
    sample = results["high", "broken"]
    assert sample.median is None
    assert sample.problem == "does not start: there is no option --workers"


def test_a_server_that_fails_sessions(generator: Path) -> None:
    """Failed sessions are added up over the rounds."""
    closes = (
        "import socket, sys\n"
        "listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "while True:\n    listening.accept()[0].close()\n"
    )
    peer = Peer(
        "closes", "", lambda binary, port, directory: [sys.executable, "-c", closes, str(port)], "1.0"
    )
    results = measured(generator, peer, 2)
    assert results["high", "closes"].failed == 20


def test_peers_are_not_asked_for_what_only_we_have(generator: Path) -> None:
    """An option of ours is no reason to start anybody else."""
    figure = Figure("x", "X", "s", Run("rate", 1, 1, options=("--log", "x")), "per_s", True, "chart")
    measurement = Measurement(generator, [a_peer("other", ["/none"])], [figure], machine.cores(), 1)
    measurement.run()
    assert measurement.results == {}


def test_scale() -> None:
    """Bulk streams become shorter, all else fewer, and never fewer than go at a time."""
    assert Run("rate", 64, 20_000).arguments(0.01, False)[:5] == ["rate", "-c", "64", "-n", "200"]
    assert Run("rate", 64, 20_000).arguments(0.0001, False)[:5] == ["rate", "-c", "64", "-n", "64"]
    assert Run("down", 16, 16, 3000).arguments(0.1, False)[1:] == ["-c", "16", "-n", "16", "-b", "300"]
    assert "-4" in Run("rate", 1, 1).arguments(1, True)


def test_names_of_figures_are_their_own() -> None:
    """--modes finds each, and groups mean figures that there are."""
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)
    assert figures.named(names) == list(FIGURES)
    assert [figure.name for figure in figures.named(["workers"])] == [*figures.GROUPS["workers"]]
    assert {figure.beside for figure in FIGURES} - {None} <= set(names)


# What is written.


def results(**medians: float) -> Results:
    """``ours_high=2`` is the figure "high" of this server."""
    found: Results = {}
    for name, value in medians.items():
        server, _, figure = name.partition("_")
        found[figure, OURS if server == "ours" else server] = Sample([value])
    return found


def test_comparisons_say_how_much_better() -> None:
    """Above 1 is better, also where less is; the hardest to beat comes first."""
    known = results(ours_high=200, a_high=100, b_high=400, ours_low=10, a_low=20, b_low=5)
    servers = [a_peer(OURS), a_peer("a"), a_peer("b")]
    for figure in (HIGH, LOW):
        assert report.comparisons(figure, known, servers) == [("b", 0.5), ("a", 2.0)]


def test_a_cell_has_the_spread_and_the_failures() -> None:
    """The median with the lowest and the highest below it, and what failed."""
    known: Results = {("high", OURS): Sample([3000, 1000, 2000], failed=7)}
    text = report.document({}, [HIGH], known, [a_peer(OURS)], {})
    assert "- | **2,000**\n       | 1,000 … 3,000\n       | 7 failed\n" in text


def test_a_missing_figure_has_its_reason() -> None:
    """It is not left out silently."""
    known: Results = {("high", "a"): Sample(problem="ASSOCIATE refused with 7")}
    text = report.document({}, [HIGH], known, [a_peer("a")], {})
    assert "- n/a\n" in text
    assert "* a, rate 2: ASSOCIATE refused with 7.\n" in text


def test_what_more_work_costs() -> None:
    """A figure with something more to do stands beside the one without."""
    more = Figure(
        "more", "With a log", "per second", Run("rate", 1, 1, options=("-l",)), "per_s", True, beside="high"
    )
    text = report.document({}, [HIGH, more], results(ours_high=100, ours_more=90), [a_peer(OURS)], {})
    assert "0.900 (0.900 to 0.900) times More of it" in text


def widths(picture: str) -> list[float]:
    """Of the bars; the first rectangle is the paper."""
    root = ElementTree.fromstring(picture)
    return [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]


def test_bars_are_as_long_as_their_figures() -> None:
    """And what stands in the picture is escaped."""
    bars = [plot.Bar("a <b> & c", 10, 9, 12), plot.Bar("d", 5, 5, 5, failed=3)]
    picture = plot.draw([plot.Panel("One & only", "µs", bars)])
    long, short = widths(picture)
    assert long == pytest.approx(2 * short, rel=0.01)
    text = "".join(ElementTree.fromstring(picture).itertext())
    assert "a <b> & c" in text
    assert "3 failed" in text


def test_counts_of_strace() -> None:
    """With and without a column of errors; the total is no system call."""
    table = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060           3        20           epoll_wait
 40.00    0.000040           2        19         7 accept4
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100           2        39         7 total
"""
    assert syscalls.parse(table) == {"epoll_wait": 20, "accept4": 19}


# How far it is.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_lines() -> None:
    """A file gets a line a step, with how many are done and how long the rest takes."""
    stream = io.StringIO()
    progress = Progress(2, stream)
    progress.begin("a", None)
    progress.end()
    progress.begin("b", 75.4)
    assert stream.getvalue() == "0/2 done: a\n1/2 done, 1:15 left: b\n"


def test_progress_on_a_terminal() -> None:
    """A terminal gets one line that is drawn over, and notes above it."""
    stream = Terminal()
    progress = Progress(2, stream)
    progress.begin("a long step", None)
    progress.end()
    progress.begin("b", 1)
    assert "\n" not in stream.getvalue()
    last = stream.getvalue().rpartition("\r")[2]
    assert last.startswith("[############............] 1/2 done, 0:01 left: b")
    assert len(last) >= len("[############............] 0/2 done: a long step")
    progress.note("look")
    assert stream.getvalue().endswith("\rlook\n")


def test_clock() -> None:
    """Minutes and seconds."""
    assert [clock(seconds) for seconds in (0.4, 59.6, 3600)] == ["0:00", "1:00", "60:00"]
