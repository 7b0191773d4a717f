"""
Ten thousand wrong passwords: others are served meanwhile, and nothing grows.

What it takes is printed (pytest -s), and nothing is asserted of it: it says as much of the machine as of
the server.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.origin import Origin, echo
from tests.support.processes import PATIENCE, Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc"),
]

ATTEMPTS = 10_000

#: Megabytes that a proxy may have more after one flood than after another. Every attempt that left a KiB
#: behind would be 10.
GROWTH = 6.0

# PORT ADDRESSES ATTEMPTS: from so many addresses in turn, 32 at a time, each to the end. It says how many
# were refused as RFC 1929 has it, and in how many seconds. As a process it does not hold up who measures.
ATTACKER = """
import socket, sys, threading, time
port, addresses, attempts = map(int, sys.argv[1:])
numbers = iter(range(attempts))
lock, refused = threading.Lock(), []

def run():
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        host = number % addresses
        with socket.socket() as client:
            client.settimeout(60)
            client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            client.bind((f"127.1.{host >> 8}.{host & 255}", 0))
            client.connect(("127.0.0.1", port))
            name, password = b"user%d" % (number % 7), b"guess-%d" % number
            client.sendall(b"\\5\\1\\2\\1" + bytes([len(name)]) + name + bytes([len(password)]) + password)
            said = b""
            while data := client.recv(100):
                said += data
            refused.append(said == b"\\5\\2\\1\\1")

began = time.monotonic()
threads = [threading.Thread(target=run) for _ in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(refused), time.monotonic() - began)
"""


def megabytes(pid: int) -> float:
    """The resident memory of a process."""
    return int(re.findall(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def work(port: int, origin: Origin) -> float:
    """Log in, connect, and have something echoed; the seconds that it took."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"\x05\x01\x02" + b"\x01\x05alice\x06sesame")
        assert receive(client, 4) == b"\x05\x02\x01\x00"
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2, "big"))
        assert receive(client, 10)[:2] == b"\x05\x00"
        client.sendall(b"x" * 64)
        assert receive(client, 64) == b"x" * 64
    return time.monotonic() - began


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def flood(port: int, origin: Origin, addresses: int) -> tuple[float, list[float]]:
    """Have somebody guess, and work meanwhile: attempts in a second, and the seconds of each session."""
    command = [sys.executable, "-c", ATTACKER, str(port), str(addresses), str(ATTEMPTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
        try:
            took = []
            while attacker.poll() is None:
                took.append(work(port, origin))
        finally:
            attacker.kill()
        assert attacker.stdout is not None
        refused, seconds = attacker.stdout.read().split()
    assert int(refused) == ATTEMPTS
    return ATTEMPTS / float(seconds), sorted(took)


def plain(users: Path) -> str:
    """An --auth of passwords that are compared at once."""
    users.write_text("alice:sesame\nuser1:sesame\n")
    return f"file:{users}"


def hashed(users: Path) -> str:
    """An --auth of passwords that take a thread some time."""
    bcrypt = pytest.importorskip("bcrypt")
    pytest.importorskip("passlib")  # libpass
    users.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(b'sesame', bcrypt.gensalt(8)).decode()}\n" for name in ("alice", "user1")
        )
    )
    users.chmod(0o600)
    return f"htpasswd:{users}"


@pytest.mark.parametrize(
    ("auth", "addresses", "options"),
    [
        pytest.param(plain, 20, (), id="20 addresses"),
        # More than are remembered, and no one fails twice in a minute.
        pytest.param(plain, ATTEMPTS, (), id="many addresses"),
        pytest.param(plain, 20, ("--auth-failures", "0"), id="all are checked"),
        pytest.param(hashed, 20, (), id="hashed"),
    ],
)
def test_flood(
    twistd: Callable[..., Program],
    tmp_path: Path,
    auth: Callable[[Path], str],
    addresses: int,
    options: tuple[str, ...],
) -> None:
    proxy = twistd(
        *(f"--logfile={tmp_path / 'log'}", "socks", "--listen", "tcp:0:interface=127.0.0.1"),
        # An attempt that a busy machine holds up is refused, and not given up.
        *("--handshake-timeout=120", "--auth", auth(tmp_path / "users"), *options),
    )
    log = tmp_path / "log"
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and "listening on" in log.read_text()):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else proxy.output
        time.sleep(0.02)
    port = int(re.findall(r"listening on tcp:127\.0\.0\.1:(\d+)", log.read_text())[0])
    pid = proxy.process.pid
    with Origin(echo) as origin:
        calm = sorted(work(port, origin) for _ in range(200))
        flood(port, origin, addresses)  # what is kept on purpose is there now
        before = megabytes(pid)
        rate, took = flood(port, origin, addresses)
        after = megabytes(pid)
    what = f"{auth.__name__} {' '.join(options)}".rstrip()
    print(
        f"\n{ATTEMPTS} wrong passwords ({what}) from {addresses} addresses: {rate:.0f} a second; "
        f"{len(took)} sessions meanwhile, p50 {1000 * took[len(took) // 2]:.1f} ms, "
        f"p99 {1000 * took[len(took) * 99 // 100]:.1f} ms (p99 without: {1000 * calm[198]:.1f} ms); "
        f"memory {before:.1f} MiB before and {after:.1f} MiB after"
    )
    assert took
    assert after - before < GROWTH
    lines = log.read_text().count("authentication failed: ")
    if not options and addresses == 20:
        # In two minutes at the most, but on a machine that is busy.
        assert lines < ATTEMPTS / 10
    proxy.stop()
    assert "Traceback" not in log.read_text()
