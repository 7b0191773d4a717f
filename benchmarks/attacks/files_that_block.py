"""
The files that a running server is told to read again block: what do its clients notice?

``python benchmarks/attacks/files_that_block.py`` has the configuration name, one after the other, a
FIFO, a file system that does not answer, and 900 kB of one dotted key, and sends SIGHUP. The
program prints the 99th percentile of the time of a session before, during and after each, how long
the one line about the mistake takes, and how long the server takes to end while the file system
does not answer.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from victims import SLOW_MACHINE, connected, echo_server, measure, received, request_of, serving

SECONDS = 3.0
PLAIN = '[[rule]]\nname = "all"\nallow = true\nnetworks = ["loopback"]\n'


def main() -> None:
    """Measure."""
    destination = echo_server()

    def session(port: int, source: str, number: int) -> None:
        with connected(port, source) as sock:
            sock.sendall(request_of("127.0.0.1", destination))
            assert received(sock, 12)[3] == 0
            sock.sendall(b"x")
            received(sock, 1)

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = directory / "socks.toml"
        config.write_text(PLAIN)
        os.mkfifo(directory / "fifo")
        (directory / "hangs.txt").write_text("a.example\n")
        attacks = {
            "a FIFO as names": f'{PLAIN}[sets.a]\nnames-file = "{directory}/fifo"\n',
            "a FIFO as CA": f'{PLAIN}[authentication]\nauth = ["tls:ca={directory}/fifo"]\n',
            "a dotted key of 900 kB": "a" + ".a" * 450_000 + " = 1\n",
            "a file system that hangs": f'{PLAIN}[sets.a]\nnames-file = "{directory}/hangs.txt"\n',
        }
        environment = {"PYTHONPATH": str(SLOW_MACHINE), "SLOW_SECONDS": "120"}
        with serving([f"--config={config}"], environment) as server:
            for kind, text in attacks.items():
                measure(f"before {kind}", server.port, SECONDS, session)
                server.lines.clear()
                config.write_text(text)
                server.process.send_signal(signal.SIGHUP)
                measure(f"during {kind}", server.port, SECONDS, session)
                took = server.wait_for("not reloaded", 40)
                print("  told:", [line.split("] ", 1)[-1].strip()[-110:] for line in server.lines[-1:]])
                print("  within", "no time" if took is None else f"{SECONDS + took:.1f} s at the most")
                config.write_text(PLAIN)
                measure(f"after {kind}", server.port, SECONDS, session)
            print(f"end after SIGTERM: {server.end():.2f} s")


if __name__ == "__main__":
    main()
