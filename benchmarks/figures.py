"""What is measured: the runs of the load generator, and the figures that come of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from governed import CONFIGURATIONS, LOGIN, login_of
from machine import Cores
from paths import SOCKET


class Placing(Enum):
    """Which cores the server and the load have."""

    APART = "the server on one, the load on the other"
    SERVER_PINNED = "the server on one, the load on both"
    TOGETHER = "the server and the load on both"

    def server(self, cores: Cores) -> tuple[int, ...]:
        """The server's cores."""
        return cores.both if self is Placing.TOGETHER else (cores.server,)

    def load(self, cores: Cores) -> tuple[int, ...]:
        """The load's cores."""
        return (cores.load,) if self is Placing.APART else cores.both


@dataclass(frozen=True)
class Run:
    """
    One run of the load against one server; see ``socksload.c``.

    :ivar mode: what sessions do.
    :ivar concurrency: so many at a time.
    :ivar count: sessions, echoes or datagrams in all.
    :ivar size: bytes of a bulk stream.
    :ivar by_name: the origin is asked for as "localhost".
    :ivar login: the user and the password with which each session begins: ``USER:PASSWORD``; none: without.
    :ivar options: this server's own, beside those that all runs have; such a run is not for its peers.
    :ivar config: the text of this server's configuration file; none: there is no file.
    :ivar named: what progress calls the configuration.
    :ivar balancer: HAProxy stands in front, on the load's core: its option that sends a header, or ``none``.
    :ivar placing: on which cores.
    """

    mode: str
    concurrency: int
    count: int
    size: int = 0
    by_name: bool = False
    login: str = ""
    options: tuple[str, ...] = ()
    config: str = field(default="", repr=False)
    named: str = ""
    balancer: str = ""
    placing: Placing = Placing.APART

    @property
    def label(self) -> str:
        """What it is, in short."""
        words = [self.mode, str(self.concurrency)]
        words += ["by name"] if self.by_name else []
        words += ["pinned"] if self.placing is Placing.SERVER_PINNED else []
        words += [self.named] if self.named else []
        return " ".join([*words, *self.options[:1]])

    @property
    def only_ours(self) -> bool:
        """Whether it is of no use to measure peers so."""
        return bool(self.options or self.named or self.balancer) or self.placing is not Placing.APART

    def own(self, directory: Path) -> list[str]:
        """This server's own arguments; a configuration file is written into *directory* first."""
        words = [option.format(directory=directory) for option in self.options]
        if self.config:
            file = directory / "socks.toml"
            file.write_text(self.config.replace("{directory}", str(directory)), "utf-8")
            words += ["--config", str(file)]
        return words

    def arguments(self, scale: float, socks4: bool) -> list[str]:
        """
        Of socksload.

        :param scale: how much of it to do; 1 is all.
        :param socks4: whether the server speaks nothing newer.
        """
        # Bulk streams become shorter, all else fewer.
        count = self.count if self.size > 1 else max(self.concurrency, round(self.count * scale))
        size = round(self.size * scale) if self.size > 1 else 1
        words = [self.mode, "-c", str(min(self.concurrency, count)), "-n", str(count), "-b", str(size)]
        words += ["-H", "localhost"] if self.by_name else []
        words += ["-4"] if socks4 else []
        words += ["-u", self.login] if self.login else []
        return words


@dataclass(frozen=True)
class Figure:
    """
    A number that a run brings.

    :ivar name: what ``--modes`` calls it.
    :ivar title: what it is.
    :ivar unit: of the number.
    :ivar key: socksload's name for it.
    :ivar more_is_better: or less is.
    :ivar chart: the picture that it is drawn in; none where there is nothing to be seen side by side.
    :ivar beside: for a figure of this server with something more to do, the one to compare it with.
    """

    name: str
    title: str
    unit: str
    run: Run
    key: str
    more_is_better: bool
    chart: str = ""
    beside: str | None = None


_RATE = Run("rate", 64, 20_000)
_ECHOES = Run("rtt", 64, 300_000)
# With --workers there is more load than one core can make.
_ONE_WORKER = Run("rate", 64, 20_000, placing=Placing.SERVER_PINNED)
_TWO_WORKERS = Run("rate", 64, 20_000, options=("--workers", "2"), placing=Placing.TOGETHER)
_LOGGED = Run("rate", 64, 20_000, options=("--log", "{directory}/access.log"))
_AUTHENTICATED = Run("rate", 64, 20_000, login=LOGIN, options=("--auth", f"memory:{LOGIN}"))
_ASLEEP = Run("rtt", 1, 10_000, options=("--busy-poll", "0"))
_UDP = Run("udp", 64, 300_000)
_BALANCED = Run("rate", 64, 10_000, options=("--listen", f"unix:{{directory}}/{SOCKET}"), balancer="none")
_PROXY = Run(
    "rate",
    64,
    10_000,
    options=("--listen", f"haproxy:unix:{{directory}}/{SOCKET}"),
    balancer="send-proxy-v2",
)

#: What tells how much slower a governed server is: how the figures' names end, of which runs, by what key.
_GOVERNED = (
    ("", "connections", "New connections with {}", Run("rate", 64, 10_000), "per_s", "per second"),
    (
        "cpu",
        "connections",
        "Processor time with {}",
        Run("rate", 64, 10_000),
        "cpu_us_per",
        "µs",
    ),
    ("rtt", "echoes", "Echoes over 64 sessions with {}", Run("rtt", 64, 200_000), "per_s", "per second"),
    ("rttcpu", "echoes", "Processor time of an echo with {}", Run("rtt", 64, 200_000), "cpu_us_per", "µs"),
    ("down", "bulk", "16 downloads with {}", Run("down", 16, 16, 200_000_000), "gbit", "Gbit/s"),
)
#: The configurations whose echoes and bulk streams are measured, too.
_WITH_TRAFFIC = frozenset({"open", "all", "allpassword"})


def _governed() -> Iterator[Figure]:
    for name, (words, config) in {"open": ("nothing to govern", ""), **CONFIGURATIONS}.items():
        for ending, kind, title, run, key, unit in _GOVERNED:
            if kind == "connections" or name in _WITH_TRAFFIC:
                run = replace(run, config=config, login=login_of(name), named=name)
                beside = None if name == "open" else f"open{ending}"
                yield Figure(
                    f"{name}{ending}", title.format(words), unit, run, key, unit != "µs", beside=beside
                )


FIGURES = (
    Figure("rate64", "New connections, 64 at a time", "per second", _RATE, "per_s", True, "connections"),
    Figure(
        "rate64cpu", "Processor time of one such session", "µs", _RATE, "cpu_us_per", False, "connections"
    ),
    Figure(
        "rate64name",
        "New connections by name",
        "per second",
        Run("rate", 64, 20_000, by_name=True),
        "per_s",
        True,
        "connections",
        beside="rate64",
    ),
    Figure(
        "rate64log",
        "New connections with an access log",
        "per second",
        _LOGGED,
        "per_s",
        True,
        beside="rate64",
    ),
    Figure(
        "rate64auth",
        "New connections with a password",
        "per second",
        _AUTHENTICATED,
        "per_s",
        True,
        beside="rate64",
    ),
    Figure(
        "rate64authcpu",
        "Processor time of one such session",
        "µs",
        _AUTHENTICATED,
        "cpu_us_per",
        False,
        beside="rate64cpu",
    ),
    Figure("rtt64", "Echoes over 64 sessions", "per second", _ECHOES, "per_s", True, "echoes"),
    Figure("rtt64p99", "One of these echoes, 99th percentile", "µs", _ECHOES, "p99us", False, "echoes"),
    Figure("rtt1", "One session's echo, median", "µs", Run("rtt", 1, 10_000), "p50us", False, "echoes"),
    Figure(
        "rtt1sleep", "One session's echo with --busy-poll 0", "µs", _ASLEEP, "p50us", False, beside="rtt1"
    ),
    Figure("down1", "Download, 1 stream", "Gbit/s", Run("down", 1, 1, 3_000_000_000), "gbit", True, "bulk"),
    Figure(
        "down16", "Download, 16 streams", "Gbit/s", Run("down", 16, 16, 300_000_000), "gbit", True, "bulk"
    ),
    Figure("up16", "Upload, 16 streams", "Gbit/s", Run("up", 16, 16, 300_000_000), "gbit", True, "bulk"),
    # One of the peers has six descriptors for each session: 3,000 fit into the usual hard limit.
    Figure("idle", "Memory of an idle session", "KiB", Run("idle", 500, 3000, 1), "kb_per", False, "memory"),
    Figure("udp64", "Datagrams echoed, 64 in flight", "per second", _UDP, "per_s", True, "udp"),
    Figure("udp64cpu", "Processor time of one such echo", "µs", _UDP, "cpu_us_per", False, "udp"),
    Figure("udp64load", "The load's own of one such echo", "µs", _UDP, "load_us_per", False),
    Figure("worker1", "New connections, one process", "per second", _ONE_WORKER, "per_s", True),
    Figure(
        "worker2",
        "New connections, --workers 2",
        "per second",
        _TWO_WORKERS,
        "per_s",
        True,
        beside="worker1",
    ),
    Figure("worker2cpu", "Their processor time of one session", "µs", _TWO_WORKERS, "cpu_us_per", False),
    Figure("worker2load", "The load's own, on the same cores", "µs", _TWO_WORKERS, "load_us_per", False),
    *_governed(),
    Figure("balanced", "New connections through HAProxy", "per second", _BALANCED, "per_s", True),
    Figure("balancedcpu", "Processor time of one such session", "µs", _BALANCED, "cpu_us_per", False),
    Figure(
        "proxy",
        "New connections through HAProxy with PROXY headers",
        "per second",
        _PROXY,
        "per_s",
        True,
        beside="balanced",
    ),
    Figure(
        "proxycpu",
        "Processor time with a PROXY header",
        "µs",
        _PROXY,
        "cpu_us_per",
        False,
        beside="balancedcpu",
    ),
)

#: Short for several.
GROUPS = {
    "workers": ("worker1", "worker2", "worker2cpu", "worker2load"),
    "proxied": ("balanced", "balancedcpu", "proxy", "proxycpu"),
    "governed": tuple(figure.name for figure in _governed()),
}


def named(names: Sequence[str]) -> list[Figure]:
    """
    The figures that *names* mean, in their usual order.

    :raises ValueError: for one that there is not.
    """
    by_name = {figure.name: figure for figure in FIGURES}
    wanted = {figure for name in names for figure in GROUPS.get(name, (name,))}
    unknown = wanted - set(by_name)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not one of {', '.join([*by_name, *GROUPS])}")
    return [figure for figure in FIGURES if figure.name in wanted]
