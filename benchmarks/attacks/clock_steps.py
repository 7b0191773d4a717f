"""
The wall clock of a running server steps: what do its clients notice?

``python benchmarks/attacks/clock_steps.py [SECONDS]`` starts a server with timeouts of half an
hour and steps the server's wall clock forward and back by an hour. The program prints for each
phase the 99th percentile of the time of a whole session (connection, request, echo), the
failures, and which of the clients that wait have been ended.
"""

from __future__ import annotations

import select
import socket
import sys
import tempfile
from pathlib import Path

from victims import ASSOCIATE, BIND, CONNECT, connected, echo_server, echoing, measure, requested, serving

SITE = Path(__file__).parent / "wall_clock"
HOUR = 3600
HALF = str(HOUR // 2)
OPTIONS = [
    *("--handshake-timeout", HALF, "--idle-timeout", HALF),
    *("--bind-timeout", HALF, "--udp-idle-timeout", HALF),
]


def phase(name: str, port: int, destination: int, seconds: float, waiting: dict[str, socket.socket]) -> None:
    """Measure for some seconds and print what was seen."""
    measure(name, port, seconds, echoing(destination))
    ended = [each for each, sock in waiting.items() if select.select([sock], [], [], 0)[0]]
    print(f"    ended of those that wait: {', '.join(ended) or 'none'}", flush=True)


def main(seconds: float) -> None:
    """Before, during and after both steps."""
    destination = echo_server()
    with tempfile.TemporaryDirectory() as directory:
        step_file = Path(directory) / "step"
        step_file.write_text("0".ljust(32))
        environment = {"PYTHONPATH": str(SITE), "WALL_CLOCK_STEP": str(step_file)}
        with serving(OPTIONS, environment) as server:
            port = server.port
            waiting = {
                "handshake": connected(port),
                "session": requested(port, CONNECT, destination),
                "BIND": requested(port, BIND, 0),
                "association": requested(port, ASSOCIATE, 0),
            }
            for name, step in (
                ("before", 0),
                ("one hour forward", HOUR),
                ("right again", 0),
                ("one hour back", -HOUR),
                ("after", 0),
            ):
                with step_file.open("r+b", buffering=0) as file:
                    file.write(str(step).ljust(32).encode())
                phase(name, port, destination, seconds, waiting)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
