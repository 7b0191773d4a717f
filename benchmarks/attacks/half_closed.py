"""
Clients go, and their destination does not close: what do other clients notice?

``python benchmarks/attacks/half_closed.py [SECONDS]`` starts a server that may open 1,024 descriptors. An
attacker's clients connect to a destination that never closes, send a FIN and leave, as many in a second
as the second argument says (200). The program prints for each phase the 99th percentile of the time of a
whole session (connection, request, echo) of other clients, and the failures.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

from victims import CONNECT, echo_server, echoing, measure, requested, serving

DESCRIPTORS = 1024


def mute_server() -> int:
    """Accepts connections and never closes one; the port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            kept.append(listening.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


class Attack(threading.Thread):
    """
    Clients that connect and leave.

    :param port: of the server.
    :param rate: clients in a second.
    """

    def __init__(self, port: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._pause = 1 / rate
        self._destination = mute_server()
        self.over = False
        self.came = 0

    def run(self) -> None:
        """Come and go."""
        while not self.over:
            # A client of which nothing is left cannot be told from one that waits for an answer.
            with contextlib.suppress(OSError, AssertionError):
                requested(self._port, CONNECT, self._destination).close()
                self.came += 1
            time.sleep(self._pause)


def main(seconds: float, rate: float) -> None:
    """Before, during and after."""
    destination = echo_server()
    with serving(descriptors=DESCRIPTORS) as server:
        attack = Attack(server.port, rate)
        for name in ("before", "during", "during, later", "after"):
            if name == "during":
                attack.start()
            attack.over = name == "after"
            measure(name, server.port, seconds, echoing(destination))
            used = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            print(f"    {attack.came} came and went, {used} descriptors", flush=True)


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 10.0,
        float(sys.argv[2]) if len(sys.argv) > 2 else 200.0,
    )
