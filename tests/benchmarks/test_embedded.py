"""A web server in the proxy's own process keeps answering while bulk data moves."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

import embedded
from proxy import BODY

from ..support.benchmarks import run


@pytest.mark.parametrize("relay", [[], ["--no-engine"]], ids=["engine", "transports"])
def test_the_web_server_keeps_answering(generator: Path, tmp_path: Path, relay: list[str]) -> None:
    """Every request is answered, rightly, with 16 streams beside it: how fast says the benchmark."""
    said = run("embedded.py", "--seconds", "1", "--output", tmp_path, *relay)
    assert said.returncode == 0, said.stderr
    answers = [int(number) for number in re.findall(r"^with(?:out)? load: (\d+) times, ", said.stdout, re.M)]
    assert len(answers) == 2 * 3  # the web server, and the two kinds of calls
    assert min(answers) > 0
    moved = re.search(r"16 streams through \w+: ([\d.]+) Gbit/s", said.stdout)
    assert moved is not None
    assert float(moved[1]) > 0
    assert "16 streams" not in said.stderr
    assert "Gbit/s and 64 echoes through the proxy" in (tmp_path / embedded.RESULTS).read_text("utf-8")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Internal Server Error\r\n\r\n" + BODY, b"HTTP/1.1 200 OK\r\n\r\nHere", b""],
    ids=["wrong", "cut short", "none"],
)
def test_a_wrong_answer_is_noticed(answer: bytes) -> None:
    """What is not the right answer, whole, is none."""
    mine, servers = socket.socketpair()
    with mine, servers:
        servers.sendall(answer)
        servers.shutdown(socket.SHUT_WR)
        with pytest.raises(embedded.WrongAnswer):
            embedded.ask(mine)
