"""
Two network namespaces: programs in one of them, and in the other one all that they may reach, behind a proxy.

::

    client (10.77.0.2, fd77::2)  ---- capture ----  server (10.77.0.1, fd77::1: the proxy)
                                                    10.88.0.1, fd88::1: the origins

The client has a default route, so that what goes around the proxy would pass, and would be captured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import TWISTD, Program
from tests.support.programs import PATIENCE, missing, require

#: Other processes of a test run have namespaces of their own.
CLIENT, SERVER = f"socksproxy-client-{os.getpid()}", f"socksproxy-server-{os.getpid()}"
PROXY = "10.77.0.1"
ORIGIN, ORIGIN6 = "10.88.0.1", "fd88::1"
#: Known to the proxy alone.
NAMES = {"web.test": [ORIGIN], "dual.test": [ORIGIN, ORIGIN6]}

_SETUP = f"""
ip netns add {CLIENT}
ip netns add {SERVER}
ip -n {CLIENT} link set lo up
ip -n {SERVER} link set lo up
ip -n {SERVER} link add inside type veth peer name outside netns {CLIENT}
ip -n {SERVER} addr add {PROXY}/24 dev inside
ip -n {SERVER} addr add fd77::1/64 dev inside nodad
ip -n {SERVER} link set inside up
ip -n {CLIENT} addr add 10.77.0.2/24 dev outside
ip -n {CLIENT} addr add fd77::2/64 dev outside nodad
ip -n {CLIENT} link set outside up
ip -n {SERVER} addr add {ORIGIN}/32 dev lo
ip -n {SERVER} addr add {ORIGIN6}/128 dev lo nodad
ip -n {CLIENT} route add default via {PROXY}
ip -n {CLIENT} -6 route add default via fd77::1
"""
# What may pass between the two; neighbours have to find each other.
_ALLOWED = f"(tcp and host {PROXY} and port 1080) or arp or icmp6 or igmp or ip6 host ff02::16"
_NAME_SERVER = """
import sys, time
from tests.support.names import NameServer
with NameServer(eval(sys.argv[1])) as server:
    print("port", server.port, flush=True)
    time.sleep(3600)
"""
_RULE = '[[rule]]\nname = "all"\nallow = true\nnetworks = ["special", "0.0.0.0/0", "::/0"]\n'


class Namespaces:
    """
    The namespaces, with the proxy and its name server.

    :param directory: for files.
    """

    def __init__(self, directory: Path) -> None:
        self._ip = require("ip")
        if os.geteuid():
            missing("the right to make network namespaces (root)")
        self._directory = directory
        self._programs: list[Program] = []
        self.remove()
        for line in _SETUP.strip().splitlines():
            done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                self.remove()
                missing(f"network namespaces ({done.stderr.strip()})")
        try:
            names = self.start(SERVER, [sys.executable, "-c", _NAME_SERVER, repr(NAMES)])
            port = names.wait_for(r"port (\d+)")[1]
            (directory / "rules.toml").write_text(_RULE)
            options = ["--config", str(directory / "rules.toml"), "--resolver", f"dns:127.0.0.1:{port}"]
            listen = ["--listen", f"tcp:1080:interface={PROXY}"]
            proxy = self.start(SERVER, [*TWISTD, "-n", "--pidfile=", "socks", *options, *listen])
            proxy.wait_for("listening on tcp")
        except BaseException:
            self.stop()
            raise

    def start(self, namespace: str, command: Sequence[str]) -> Program:
        """Start *command* in *namespace*, until :meth:`stop`."""
        root = str(Path(__file__).parents[2])
        environment = {"PYTHONPATH": root}
        line = [self._ip, "netns", "exec", namespace, *command]
        self._programs.append(Program(line, self._directory, environment))
        return self._programs[-1]

    def run(
        self, command: Sequence[str], directory: Path, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* in the client's namespace, and wait."""
        return subprocess.run(
            [self._ip, "netns", "exec", CLIENT, *command],
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def socksified(
        self,
        command: Sequence[str],
        directory: Path,
        *options: str,
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* by ``socksproxy run``."""
        line = [sys.executable, "-m", "socksproxy", "run", "--proxy", f"socks5://{PROXY}", *options, "--"]
        return self.run([*line, *command], directory, environment)

    def remove(self) -> None:
        """Take the namespaces away."""
        for namespace in (CLIENT, SERVER):
            subprocess.run([self._ip, "netns", "del", namespace], capture_output=True, check=False)

    def stop(self) -> None:
        """End all programs, and take the namespaces away."""
        for program in self._programs:
            program.stop()
        self.remove()


class Capture:
    """
    What passes between the namespaces beside the proxy, in a ``with`` statement.

    :param also: a further filter expression for what may pass.
    :ivar packets: what has passed, a line for each packet, at the end.
    """

    def __init__(self, also: str = "") -> None:
        allowed = f"{_ALLOWED} or ({also})" if also else _ALLOWED
        command = [require("ip"), "netns", "exec", CLIENT, require("tcpdump"), "-i", "outside", "-n", "-l"]
        self._command = [*command, "--immediate-mode", f"not ({allowed})"]
        self.packets: list[str] = []

    def __enter__(self) -> Capture:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        while "listening on" not in (line := self._process.stderr.readline()):
            assert line, "tcpdump does not start"
        return self

    def __exit__(self, *how: object) -> None:
        time.sleep(0.1)  # what has been sent last is on its way
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=PATIENCE)
        self.packets = [line for line in said.splitlines() if line]
