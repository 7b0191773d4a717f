"""
Clients send much before their destination answers, and memory runs short: what do other clients notice?

``python benchmarks/attacks/early_data.py [SECONDS] [CLIENTS] [MIB]`` starts a server and lets its memory
grow by some MiB (96), as ``ulimit -v`` does. An attacker's clients (1,900) ask for a destination that does
not answer, and each sends 64 KiB. The program prints for each phase the 99th percentile of the time of a
whole session (connection, request, echo) of other clients, the failures, and the server's memory.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
import time
from pathlib import Path

from victims import connected, echo_server, echoing, measure, serving

#: Seconds in which the server gives up a destination, and so forgets what is there for it.
CONNECT_TIMEOUT = 15
EARLY = bytes(65536)


def stuck_server() -> tuple[int, list[socket.socket]]:
    """A destination whose queue is full: connecting takes for ever. Its port, and what fills the queue."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = [listening]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
        filling.append(filler)
    return listening.getsockname()[1], filling


def memory(pid: int, what: str) -> int:
    """Bytes of the process's memory: ``VmSize`` or ``VmRSS``."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) << 10


def attacker(port: int, destination: int) -> socket.socket:
    """A client that has sent all it could before its request is granted."""
    sock = connected(port)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    sock.sendall(bytes((5, 1, 0, 1, 127, 0, 0, 1)) + destination.to_bytes(2, "big"))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.sendall(EARLY)
    return sock


def attackers(port: int, destination: int, count: int) -> list[socket.socket]:
    """*count* of them, or as many as the server takes before it refuses some."""
    found: list[socket.socket] = []
    refused = 0
    while len(found) < count and refused < 3:
        try:
            found.append(attacker(port, destination))
        except (OSError, AssertionError):
            refused += 1
    return found


def main(seconds: float, count: int, growth: int) -> None:
    """Before, during and after."""
    destination = echo_server()
    stuck, filling = stuck_server()
    with serving(["--connect-timeout", str(CONNECT_TIMEOUT)]) as server:
        port, pid = server.port, server.process.pid
        clients: list[socket.socket] = []
        for name in ("before", "during", "after"):
            if name == "during":
                most = memory(pid, "VmSize") + (growth << 20)
                resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
                clients += attackers(port, stuck, count)
            elif name == "after":
                for client in clients:
                    client.close()
                time.sleep(CONNECT_TIMEOUT)
            measure(name, port, seconds, echoing(destination))
            print(f"    {len(clients)} attackers, {memory(pid, 'VmRSS') >> 20} MiB of memory", flush=True)
    for sock in filling:
        sock.close()


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 10.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 1900,
        int(sys.argv[3]) if len(sys.argv) > 3 else 96,
    )
