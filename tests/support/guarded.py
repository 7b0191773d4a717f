"""Two Redis servers in a fleet, and three Sentinels that say which of them the nodes use."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.support.fleet import ADDRESSES, Fleet, until
from tests.support.programs import require

#: The machines of the servers; the first one begins.
SERVERS = ("store", "second")
_WATCH = ADDRESSES["watch"][0]
_PORTS = (26379, 26380, 26381)
#: What nodes are told.
URL = f"redis+sentinel://{','.join(f'{_WATCH}:{port}' for port in _PORTS)}/mymaster"


class GuardedStore:
    """
    The servers and the Sentinels.

    :param fleet: on whose machines they run.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._sentinels: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        first, second = SERVERS
        self.start(first)
        self.start(second, of=first)
        directory = self._fleet.directory / "watch"
        directory.mkdir()
        for port in _PORTS:
            config = directory / f"{port}.conf"
            config.write_text(
                f"port {port}\nbind {_WATCH}\nprotected-mode no\ndir {directory}\n"
                f"sentinel monitor mymaster {ADDRESSES[first][0]} 6379 2\n"
                "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 3000\n"
            )
            with self._fleet.inside("watch"):
                self._sentinels.append(
                    subprocess.Popen([require("redis-sentinel"), str(config)], stdout=subprocess.DEVNULL)
                )
        until(self.settled)

    def start(self, machine: str, of: str | None = None) -> None:
        """Start the server of *machine*, with nothing in it; *of*: as the replica of that machine's."""
        directory = self._fleet.directory / machine
        directory.mkdir(exist_ok=True)
        replica = [] if of is None else ["--replicaof", f"{ADDRESSES[of][0]} 6379"]
        command = [require("redis-server"), "--port", "6379", "--bind", ADDRESSES[machine][0], *replica]
        command += ["--protected-mode", "no", "--save", "", "--dir", str(directory)]
        with self._fleet.inside(machine):
            self._programs[machine] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def signal(self, machine: str, number: signal.Signals) -> None:
        """Send the server of *machine* a signal."""
        self._programs[machine].send_signal(number)

    def kill(self, machine: str) -> None:
        """Kill the server of *machine*: all that it has is lost."""
        self._programs[machine].kill()
        self._programs[machine].wait()

    def ask(self, *command: str, of: str = _WATCH, port: int = _PORTS[0]) -> Any:
        """What a server, or a Sentinel, answers."""
        client: Any
        with (
            self._fleet.inside("watch"),
            Redis(of, port, protocol=2, decode_responses=True, socket_timeout=2) as client,
        ):
            return client.execute_command(*command)

    @property
    def master(self) -> str:
        """The machine whose server is in use, as the Sentinels say."""
        address, _ = self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", "mymaster")
        return next(machine for machine in SERVERS if ADDRESSES[machine][0] == address)

    def settled(self) -> bool:
        """Whether one server is in use, the other one is its replica, and all Sentinels know that."""
        with suppress(RedisError, OSError):
            states = [self.ask("SENTINEL MASTER", "mymaster", port=port) for port in _PORTS]
            of = ADDRESSES[self.master][0]
            told = self.ask("INFO", "replication", of=of, port=6379)
            return (
                all(
                    (state["ip"], state["num-slaves"], state["num-other-sentinels"], state["is_odown"])
                    == (of, 1, 2, False)
                    for state in states
                )
                and told["role"] == "master"
                and told["connected_slaves"] == 1
                and told["slave0"]["state"] == "online"
            )
        return False

    def total(self, holder: str) -> int:
        """The bytes of *holder* in all months, of all nodes."""
        of = ADDRESSES[self.master][0]
        keys = self.ask("KEYS", f"sp:*:u:????-??:{holder}", of=of, port=6379)
        return sum(int(count) for key in keys for count in self.ask("HVALS", key, of=of, port=6379))

    def stop(self) -> None:
        """End all of them, also those that are stopped."""
        for process in [*self._sentinels, *self._programs.values()]:
            process.kill()
            process.wait()
