"""
A client asks for names whose DNS server does not answer, and closes each connection: what do others
notice?

``python benchmarks/attacks/slow_names.py [NAMES]`` starts a server on a machine where names that
begin with ``slow`` have no answer for a minute. Other clients reach new names, a name that is
known, and ``localhost``. The program prints the 99th percentile of the time of a whole session for
each before, during and after, how long a reload takes during the attack, and how long the server
takes to end.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from itertools import count
from pathlib import Path

from victims import SLOW_MACHINE, Session, connected, echo_server, measure, received, request_of, serving

SECONDS = 3.0
_numbers = count()


def reaching(name: str, destination: int) -> Session:
    """A session with *name*, in which ``%d`` is a number of its own, and one echo."""

    def session(port: int, source: str, number: int) -> None:
        wanted = name % next(_numbers) if "%d" in name else name
        with connected(port, source) as sock:
            sock.sendall(request_of(wanted, destination))
            assert received(sock, 12)[3] == 0
            sock.sendall(b"x" * 64)
            assert received(sock, 64) == b"x" * 64

    return session


def main(names: int) -> None:
    """Measure."""
    destination = echo_server()
    kinds = {
        "new names": reaching("n%d.quick.test", destination),
        "a known name": reaching("known.quick.test", destination),
        "localhost": reaching("localhost", destination),
    }
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "socks.toml"
        config.write_text(
            '[[rule]]\nname = "all"\nallow = true\nnetworks = ["loopback"]\n'
            '[[rule]]\nname = "names"\nallow = true\nnames = ["*"]\n'
        )
        environment = {"PYTHONPATH": str(SLOW_MACHINE), "SLOW_SECONDS": "60"}
        with serving([f"--config={config}"], environment) as server:
            for kind, session in kinds.items():
                measure(f"before, {kind}", server.port, SECONDS, session)
            for number in range(names):
                with connected(server.port, "127.0.0.99") as sock:
                    sock.sendall(request_of(f"slow{number}.test", 80))
            for kind, session in kinds.items():
                measure(f"{names} names later, {kind}", server.port, SECONDS, session)
            held = [connected(server.port, "127.0.0.98") for _ in range(names)]
            for number, sock in enumerate(held):
                sock.sendall(request_of(f"slow-held{number}.test", 80))
            for kind, session in kinds.items():
                measure(f"{names} more that wait, {kind}", server.port, SECONDS, session)
            server.process.send_signal(signal.SIGHUP)
            took = server.wait_for("reloaded", 30)
            print("reload:", "not within 30 s" if took is None else f"{took:.2f} s")
            for sock in held:
                sock.close()
            for kind, session in kinds.items():
                measure(f"after, {kind}", server.port, SECONDS, session)
            print(f"end after SIGTERM: {server.end():.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
