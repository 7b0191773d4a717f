"""A DNS server on loopback, in a thread, for names that exist nowhere else."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from types import TracebackType

from twisted.names import dns


class NameServer:
    """
    Answers A and AAAA queries from a table, and PTR queries from another.

    :param hosts: for each name, its addresses; they may be changed while it runs.
    :param pointers: for each literal address that has one, its name.
    :ivar port: the UDP port on 127.0.0.1.
    :ivar asked: the names and types that were asked for, in order.
    """

    def __init__(self, hosts: dict[str, list[str]], pointers: dict[str, str] | None = None) -> None:
        self.hosts = hosts
        self.pointers = {ip_address(host).reverse_pointer: name for host, name in (pointers or {}).items()}
        self.asked: list[tuple[str, int]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(2048)
            if not data:
                return
            self._socket.sendto(self._answer(data), client)

    def _answer(self, data: bytes) -> bytes:
        query = dns.Message()
        query.fromStr(data)
        question = query.queries[0]
        name = question.name.name.decode("ascii").lower()
        self.asked.append((name, question.type))
        answer = dns.Message(id=query.id, answer=1, recDes=1, recAv=1)
        answer.queries = query.queries
        if name not in self.hosts and name not in self.pointers:
            answer.rCode = dns.ENAME
        if question.type == dns.PTR and name in self.pointers:
            pointer = dns.Record_PTR(self.pointers[name].encode(), 1)
            answer.answers.append(dns.RRHeader(name.encode(), dns.PTR, dns.IN, 1, pointer))
        for host in self.hosts.get(name, []):
            record = dns.Record_AAAA(host, 1) if ":" in host else dns.Record_A(host, 1)
            if question.type == record.TYPE:
                answer.answers.append(dns.RRHeader(name.encode(), record.TYPE, dns.IN, 1, record))
        return bytes(answer.toStr())
