"""
A client asks for UDP associations without end: what do other clients notice?

``python benchmarks/attacks/associations.py [SECONDS]`` starts servers with a range of 100 UDP ports and one
neighbour, who has an association and opens another one again and again. The attacker, with another address,

* may have no destination by the rules, and asks for as many associations as it can;
* is permitted, and begins associations without end, each of which it uses once.

The program prints for each phase how many associations the attacker asked for and got, how many of the
neighbour's associations failed, and the 99th percentile of the time from its request to the answer to its
first datagram, and of one datagram there and back in the association that it has all the time.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

PORTS = 100
#: So many associations of the attacker are open at once.
KEPT = 200
PATIENCE = 5.0
NEIGHBOUR, ATTACKER = "127.0.0.1", "127.0.0.2"
REQUEST = b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6)
RULES = {
    "an outsider": f'[[rule]]\nname = "inside"\nallow = true\nclients = ["{NEIGHBOUR}"]\n',
    "a permitted client": '[[rule]]\nname = "all"\nallow = true\n',
}


class Refused(Exception):
    """The server grants no association."""


def associated(port: int, source: str) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
    """An association: its TCP connection, the client's UDP socket, and where to send."""
    tcp = socket.socket()
    try:
        tcp.settimeout(PATIENCE)
        tcp.bind((source, 0))
        tcp.connect((NEIGHBOUR, port))
        tcp.sendall(REQUEST)
        answer = b""
        while len(answer) < 12 and (data := tcp.recv(100)):
            answer += data
        if answer[3:4] != b"\0":
            raise Refused
    except BaseException:
        tcp.close()
        raise
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.settimeout(PATIENCE)
    udp.bind((source, 0))
    return tcp, udp, (NEIGHBOUR, int.from_bytes(answer[-2:], "big"))


def echoed(udp: socket.socket, relay: tuple[str, int], header: bytes) -> None:
    """One datagram there and back."""
    udp.sendto(header + b"ping", relay)
    udp.recv(100)


def echo_server() -> bytes:
    """Sends back what comes; the header for datagrams to it."""
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind((NEIGHBOUR, 0))

    def serve() -> None:
        while True:
            udp.sendto(*udp.recvfrom(100))

    threading.Thread(target=serve, daemon=True).start()
    port: int = udp.getsockname()[1]
    return b"\0\0\0\1" + socket.inet_aton(NEIGHBOUR) + port.to_bytes(2, "big")


def attack(port: int, header: bytes, until: float) -> None:
    """Ask for associations until then, and print how often, and how many were granted."""
    kept: deque[tuple[socket.socket, socket.socket]] = deque()
    asked = granted = 0
    while time.monotonic() < until:
        asked += 1
        with contextlib.suppress(OSError, Refused):
            tcp, udp, relay = associated(port, ATTACKER)
            granted += 1
            udp.sendto(header + b"ping", relay)
            kept.append((tcp, udp))
        while len(kept) > KEPT:
            for sock in kept.popleft():
                sock.close()
    print(asked, granted)


@contextlib.contextmanager
def server(rules: str) -> Iterator[int]:
    """A server with these rules; its port."""
    first = 20000
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "socks.toml"
        file.write_text(rules)
        command = [
            *(
                sys.executable,
                "-m",
                "twisted",
                "--log-format=text",
                "socks",
                "-p",
                "0",
                "--config",
                str(file),
            ),
            *("--udp-ports", f"{first}-{first + PORTS - 1}"),
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


def phase(name: str, port: int, header: bytes, seconds: float, attacked: bool) -> None:
    """Be the neighbour for some seconds, and print what it has seen."""
    until = time.monotonic() + seconds
    command = [sys.executable, __file__, "--attack", str(port), header.hex(), str(until)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if attacked else None
    begins: list[float] = []
    echoes: list[float] = []
    failed = lost = 0
    tcp, udp, relay = associated(port, NEIGHBOUR)
    with tcp, udp:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                one, other, place = associated(port, NEIGHBOUR)
                with one, other:
                    echoed(other, place, header)
            except (OSError, Refused):
                failed += 1
            begins.append(time.monotonic() - began)
            began = time.monotonic()
            try:
                echoed(udp, relay, header)
            except OSError:
                lost += 1
            echoes.append(time.monotonic() - began)
            time.sleep(0.01)
    told = ""
    if process is not None:
        asked, granted = process.communicate()[0].split()
        told = f"; the attacker asked for {asked} and got {granted}"
    print(
        f"  {name:8} {len(begins):6} associations, {failed} failed, p99 {p99(begins):7.1f} ms;"
        f" {len(echoes)} echoes, {lost} lost, p99 {p99(echoes):6.1f} ms{told}",
        flush=True,
    )


def p99(times: list[float]) -> float:
    """The 99th percentile of *times*, in milliseconds."""
    return sorted(times)[len(times) * 99 // 100] * 1000


def main(seconds: float) -> None:
    """Each attacker, with what goes before and comes after."""
    header = echo_server()
    for attacker, rules in RULES.items():
        print(attacker)
        with server(rules) as port:
            for name, attacked in (("before", False), ("during", True), ("after", False)):
                phase(name, port, header, seconds, attacked)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        attack(int(sys.argv[2]), bytes.fromhex(sys.argv[3]), float(sys.argv[4]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
