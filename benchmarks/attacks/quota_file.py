"""
The file of used quotas is overwritten, deleted and replaced while the server runs: what is lost?

``python benchmarks/attacks/quota_file.py`` prints the 99th percentile of the time of a session
before, during and after each, and how many of the bytes that clients have moved the file holds at
the end.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from victims import connected, echo_server, measure, received, request_of, serving

SECONDS = 3.0
SIZE = 1000


def held(path: Path) -> int:
    """How many bytes the file says that the server has moved this month."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT MAX(bytes) FROM usage WHERE holder = 'server' AND length(period) = 7"
        return int(connection.execute(query).fetchone()[0] or 0)


def main() -> None:
    """Measure."""
    destination = echo_server()
    moved = 0
    counting = threading.Lock()

    def session(port: int, source: str, number: int) -> None:
        nonlocal moved
        with connected(port, source) as sock:
            sock.sendall(request_of("127.0.0.1", destination))
            assert received(sock, 12)[3] == 0
            sock.sendall(b"x" * SIZE)
            received(sock, SIZE)
            with counting:
                moved += 2 * SIZE

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "usage"
        config = Path(name) / "socks.toml"
        config.write_text(
            f'[limits]\nquota-file = "{path}"\n[limits.server]\nmonthly = "1 TB"\n'
            '[[rule]]\nname = "all"\nallow = true\nnetworks = ["loopback"]\n'
        )
        attacks: dict[str, Callable[[], object]] = {
            "overwritten": lambda: path.write_bytes(b"garbage" * 1000),
            "emptied": lambda: path.write_bytes(b""),
            "deleted": lambda: path.unlink(missing_ok=True),
            "replaced": lambda: config.with_name("other").rename(path),
        }
        with serving([f"--config={config}"]) as server:
            measure("before", server.port, SECONDS, session)
            for kind, attack in attacks.items():
                config.with_name("other").write_bytes(b"")
                attack()
                measure(kind, server.port, SECONDS, session)
            measure("after", server.port, SECONDS, session)
            for line in server.lines:
                if "what is known" in line or "written again" in line:
                    print("  told:", line.split("] ", 1)[-1].strip())
            print(f"end after SIGTERM: {server.end():.2f} s")
        print(f"moved {moved} bytes, and the file says {held(path)}")


if __name__ == "__main__":
    main()
