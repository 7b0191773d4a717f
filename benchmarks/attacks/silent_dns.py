"""
A client asks for names that a DNS server does not answer for, and closes each connection: who notices?

``python benchmarks/attacks/silent_dns.py [NAMES]`` starts a DNS server on loopback, and a proxy that asks it
(``--resolver dns:``). Names that begin with ``slow`` have no answer; those that begin with ``half`` have one
for IPv4 only. The program prints the 99th percentile of the time of a whole session with a new name before,
during and after, how many descriptors and lines in the log the attack costs, and how long names with a silent
family take.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
from itertools import count

import dns.message
import dns.rrset
from dns.rdatatype import AAAA, A
from victims import Server, Session, connected, echo_server, measure, received, request_of, serving

SECONDS = 3.0
#: Descriptors that the server may have: 600 names with two sockets each are more.
DESCRIPTORS = 1024
_numbers = count()


def dns_server() -> int:
    """Answers with 127.0.0.1; the port."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            data, client = port.recvfrom(512)
            query = dns.message.from_wire(data)
            (asked,) = query.question
            name = asked.name.to_text()
            if name.startswith("slow") or (name.startswith("half") and asked.rdtype == AAAA):
                continue
            answer = dns.message.make_response(query)
            if asked.rdtype == A:
                answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", A, "127.0.0.1"))
            port.sendto(answer.to_wire(), client)

    threading.Thread(target=serve, daemon=True).start()
    number: int = port.getsockname()[1]
    return number


def reaching(name: str, destination: int) -> Session:
    """A session with *name*, in which ``%d`` is a number of its own, and one echo."""

    def session(port: int, source: str, number: int) -> None:
        with connected(port, source) as sock:
            sock.sendall(request_of(name % next(_numbers), destination))
            assert received(sock, 12)[3] == 0
            sock.sendall(b"x" * 64)
            assert received(sock, 64) == b"x" * 64

    return session


def descriptors(server: Server) -> int:
    """How many the server has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def main(names: int) -> None:
    """Measure."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    destination = echo_server()
    new_names = reaching("n%d.test", destination)
    with serving([f"--resolver=dns:127.0.0.1:{dns_server()}"]) as server:
        measure("before", server.port, SECONDS, new_names)
        lines, opened = len(server.lines), descriptors(server)
        for number in range(names):
            with connected(server.port, "127.0.0.99") as sock:
                sock.sendall(request_of(f"slow{number}.test", 80))
        print(f"{names} names that were given up: {descriptors(server) - opened:+} descriptors")
        measure(f"{names} names later", server.port, SECONDS, new_names)
        held = [connected(server.port, "127.0.0.98") for _ in range(min(names, 400))]
        for number, sock in enumerate(held):
            sock.sendall(request_of(f"slow-held{number}.test", 80))
        measure(f"{len(held)} more that wait", server.port, SECONDS, new_names)
        more = descriptors(server) - opened - len(held)
        print(f"{len(held)} more that wait: {more:+} descriptors beside their own")
        for sock in held:
            sock.close()
        measure("after", server.port, SECONDS, new_names)
        measure("no answer for IPv6", server.port, SECONDS, reaching("half%d.test", destination))
        print(f"lines in the log since the attack began: {len(server.lines) - lines}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
