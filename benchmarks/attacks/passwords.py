"""
Clients guess passwords: what do users with the right password notice?

``python benchmarks/attacks/passwords.py [SECONDS]`` starts servers with ten users (bcrypt, cost 10) and
attacks each server for some seconds: a wrong password and a reset after 0.12 s, or a wrong password and a
wait, 96 connections at a time, from one address and from 32. Meanwhile each user logs in again and again
from another address. The program prints for each phase how many attempts there were, how many logins of
users succeeded, and the 99th percentile of their time.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

USERS = 10
COST = 10
AT_ONCE = 96
PATIENCE = 20.0
#: Seconds after which an attacker resets its connection.
RESET_AFTER = 0.12
HERE = "127.0.0.1"
#: An option of Linux's sockets that lets many of them bind without a port each.
IP_BIND_ADDRESS_NO_PORT = 24


class Attack(NamedTuple):
    """
    How clients guess.

    :ivar addresses: from how many addresses.
    :ivar waits: whether they wait for the answer.
    :ivar passwords: how many wrong passwords they have.
    :ivar name: the user, or none: each of the users in turn.
    """

    addresses: int
    waits: bool
    passwords: int
    name: str = ""


ATTACKS = {
    "reset, 1 address": Attack(1, False, 1 << 30),
    "reset, 32 addresses": Attack(32, False, 1 << 30),
    "wait, 1 address": Attack(1, True, 1 << 30),
    "wait, 32 addresses": Attack(32, True, 1 << 30),
    "one old password": Attack(1, False, 1, "u1"),
}


def credentials(name: str, password: str) -> bytes:
    """A greeting, and behind it a username and password (RFC 1929)."""
    fields = name.encode(), password.encode()
    return b"\x05\x01\x02\x01" + b"".join(bytes([len(field)]) + field for field in fields)


def connected(port: int, source: str) -> socket.socket:
    """A connection from *source*."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    sock.connect((HERE, port))
    return sock


def answered(sock: socket.socket) -> bytes:
    """All that the server says until it has said four bytes or closes the connection."""
    said = b""
    while len(said) < 4 and (data := sock.recv(4 - len(said))):
        said += data
    return said


def logs_in(port: int, source: str, user: str) -> bool:
    """Whether *user* is let in with the right password."""
    with contextlib.suppress(OSError), connected(port, source) as sock:
        sock.sendall(credentials(user, "right"))
        return answered(sock) == b"\x05\x02\x01\x00"
    return False


def guess(port: int, attack: Attack, number: int) -> None:
    """One attempt."""
    host = number % attack.addresses
    name = attack.name or f"u{number % USERS}"
    with connected(port, f"127.1.0.{host + 1}") as sock:
        sock.sendall(credentials(name, f"wrong {number % attack.passwords}"))
        if attack.waits:
            answered(sock)
        else:
            time.sleep(RESET_AFTER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def attacker(port: int, name: str, until: float) -> None:
    """Guess until then, and print how many attempts there were."""
    numbers = iter(range(1 << 30))
    lock = threading.Lock()
    attempts = 0

    def run() -> None:
        nonlocal attempts
        while time.monotonic() < until:
            with lock:
                number = next(numbers)
            with contextlib.suppress(OSError):
                guess(port, ATTACKS[name], number)
            with lock:
                attempts += 1

    together(run, AT_ONCE)
    print(attempts)


def together(run: object, count: int) -> None:
    """Call *run* in so many threads, until all have ended."""
    threads = [threading.Thread(target=run) for _ in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def server(users: Path, *options: str) -> Iterator[int]:
    """A server with these users; its port."""
    command = [
        *(sys.executable, "-m", "twisted", "--log-format=text", "socks", "-p", "0"),
        *("--auth", f"htpasswd:{users}", *options),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = (re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            port = next(int(found[1]) for found in ports if found)
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield port
        finally:
            process.kill()


def phase(name: str, port: int, seconds: float, source: str, attack: str | None = None) -> None:
    """Have the users log in for some seconds, and print what they have seen."""
    until = time.monotonic() + seconds
    command = [sys.executable, __file__, "--attack", str(port), str(attack), str(until)]
    guessing = attack and subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if guessing:
        time.sleep(0.5)  # the queue fills
    times: list[float] = []
    failures: list[str] = []
    numbers = iter(range(USERS))

    def work() -> None:
        user = f"u{next(numbers)}"
        while time.monotonic() < until:
            began = time.monotonic()
            if not logs_in(port, source, user):
                failures.append(user)
            times.append(time.monotonic() - began)
            time.sleep(0.2)

    together(work, USERS)
    attempts = guessing.communicate()[0].strip() if guessing else "0"
    times.sort()
    print(
        f"  {name:22} {attempts:>6} attempts; {len(times) - len(failures):4} of {len(times):4} logins,"
        f" p50 {times[len(times) // 2] * 1000:7.1f} ms, p99 {times[len(times) * 99 // 100] * 1000:7.1f} ms",
        flush=True,
    )


def main(seconds: float) -> None:
    """All attacks on servers that remember passwords, that do not, and that count no failures."""
    import bcrypt

    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory) / "users"
        hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(COST)).decode()
        users.write_text("".join(f"u{number}:{hashed}\n" for number in range(USERS)))
        users.chmod(0o600)
        servers: dict[str, Sequence[str]] = {
            "passwords are remembered": (),
            "nothing is remembered": ("--auth-cache", "0"),
            "nothing is remembered, and no address is refused": ("--auth-cache", "0", "--auth-failures", "0"),
        }
        for what, options in servers.items():
            print(what)
            for name in ATTACKS:
                # Who has an old password is a neighbour of the users; others are elsewhere.
                source = "127.1.0.1" if name == "one old password" else "127.2.0.1"
                with server(users, *options) as port:
                    for number in range(USERS):
                        assert logs_in(port, source, f"u{number}")
                    phase(f"before: {name}", port, seconds, source)
                    phase("during", port, seconds, source, name)
                    phase("after", port, seconds, source)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        attacker(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 5.0)
