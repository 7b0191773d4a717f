#!/usr/bin/env python3
"""
How many connections a second a client makes through a SOCKS5 proxy: ours, other libraries, and none.

    python benchmarks/client.py

The proxy answers from a process of its own and connects to nothing, so that the client is what is measured.
The clients take turns. A client whose library is missing is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

_REPLY = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x10\x00"
_NO_LINGER = struct.pack("ii", 1, 0)
#: The client that the others are compared with.
OURS = "socksproxy"


class Result(NamedTuple):
    """What one run gave: connections, seconds of the clock, seconds of the processor."""

    connections: int
    seconds: float
    processor: float

    @property
    def rate(self) -> float:
        """Connections per second of the processor: what else the machine does counts less."""
        return self.connections / self.processor


def serve(listening: socket.socket) -> None:
    """Answer a greeting of 3 bytes and a request of any other size, for ever."""
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    links: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                link, _ = listening.accept()
                link.setblocking(False)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                links[link.fileno()] = link
                poll.register(link, select.EPOLLIN)
                continue
            try:
                data = links[fd].recv(1000)
            except OSError:
                data = b""
            if data:
                links[fd].send(b"\x05\x00" if len(data) == 3 else _REPLY)
            else:
                poll.unregister(fd)
                links.pop(fd).close()


# The clients. Each makes connections for so many seconds, some at a time.


def _with_twisted(make: Callable[[Any, Any], Any], port: int, seconds: float, at_once: int) -> Result:
    from twisted.internet import reactor as global_reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint
    from twisted.internet.protocol import Factory, Protocol

    reactor: Any = global_reactor
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    endpoint = make(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
    made = 0
    end = time.monotonic() + seconds

    def connected(protocol: Any) -> None:
        nonlocal made
        made += 1
        protocol.transport.abortConnection()
        if time.monotonic() < end:
            reactor.callLater(0, begin)
        elif reactor.running:
            reactor.callLater(0, stop)

    def stop() -> None:
        if reactor.running:
            reactor.crash()

    def begin() -> None:
        endpoint.connect(factory).addCallback(connected).addErrback(failed)

    def failed(failure: Any) -> None:
        failure.printTraceback()
        os._exit(1)

    for _ in range(at_once):
        reactor.callWhenRunning(begin)
    began, used = time.monotonic(), time.process_time()
    reactor.run(installSignalHandlers=False)
    return Result(made, time.monotonic() - began, time.process_time() - used)


def ours(port: int, seconds: float, at_once: int) -> Result:
    """This project's endpoint."""
    from socksproxy.client import SOCKS5ClientEndpoint

    def make(reactor: Any, proxy: Any) -> Any:
        return SOCKS5ClientEndpoint(proxy, "192.0.2.1", 80, reactor=reactor)

    return _with_twisted(make, port, seconds, at_once)


def txtorcon(port: int, seconds: float, at_once: int) -> Result:
    """The endpoint of txtorcon."""
    from txtorcon.socks import TorSocksEndpoint

    def make(reactor: Any, proxy: Any) -> Any:
        return TorSocksEndpoint(proxy, "192.0.2.1", 80)

    return _with_twisted(make, port, seconds, at_once)


def no_proxy(port: int, seconds: float, at_once: int) -> Result:
    """Twisted's own endpoint, which makes the connection and no handshake."""
    return _with_twisted(lambda reactor, proxy: proxy, port, seconds, at_once)


def python_socks(port: int, seconds: float, at_once: int) -> Result:
    """python-socks with asyncio."""
    from python_socks import ProxyType
    from python_socks.async_.asyncio import Proxy

    made = 0
    end = time.monotonic() + seconds

    async def connect() -> None:
        nonlocal made
        proxy = Proxy(ProxyType.SOCKS5, "127.0.0.1", port)
        while time.monotonic() < end:
            sock = await proxy.connect("192.0.2.1", 80)
            made += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            sock.close()

    async def run() -> None:
        tasks: list[Awaitable[None]] = [connect() for _ in range(at_once)]
        await asyncio.gather(*tasks)

    began, used = time.monotonic(), time.process_time()
    asyncio.run(run())
    return Result(made, time.monotonic() - began, time.process_time() - used)


CLIENTS: dict[str, Callable[[int, float, int], Result]] = {
    OURS: ours,
    "txtorcon": txtorcon,
    "python-socks": python_socks,
    "TCP4ClientEndpoint": no_proxy,
}


def measure(name: str, port: int, seconds: float, at_once: int) -> Result | None:
    """One run of the client *name*, in a process of its own; None: its library is missing."""
    command = [sys.executable, __file__, "--only", name, "--port", str(port)]
    command += ["--seconds", str(seconds), "--at-once", str(at_once)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "ModuleNotFoundError" not in done.stderr:
            raise RuntimeError(done.stderr)
        return None
    return Result(*json.loads(done.stdout))


def compare(rounds: int, seconds: float, at_once: int) -> dict[str, list[Result]]:
    """Runs of all clients, which take turns."""
    found: dict[str, list[Result]] = {}
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        port = listening.getsockname()[1]
        child = os.fork()
        if not child:
            serve(listening)
        try:
            for _ in range(rounds):
                for name in CLIENTS:
                    result = measure(name, port, seconds, at_once)
                    if result is not None:
                        found.setdefault(name, []).append(result)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return found


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    if options.only is not None:
        print(json.dumps(CLIENTS[options.only](options.port, options.seconds, options.at_once)))
        return 0
    found = compare(options.rounds, options.seconds, options.at_once)
    base = statistics.median(result.rate for result in found[OURS])
    print(f"{'':20} connections/s  per second of the processor  {OURS} beside it")
    for name, results in found.items():
        wall = statistics.median(result.connections / result.seconds for result in results)
        rate = statistics.median(result.rate for result in results)
        print(f"{name:20} {wall:13,.0f} {rate:28,.0f} {base / rate:18.2f}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--rounds", type=int, default=5, help="runs of each client [%(default)s]")
    made.add_argument("--seconds", type=float, default=3, help="of one run [%(default)s]")
    made.add_argument("--at-once", type=int, default=16, help="connections at a time [%(default)s]")
    made.add_argument("--only", choices=sorted(CLIENTS), help=argparse.SUPPRESS)
    made.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
