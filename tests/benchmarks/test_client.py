"""The benchmark of our client beside others."""

from __future__ import annotations

import importlib.util

import pytest

from ..support.benchmarks import run


def test_client() -> None:
    """Each client that is here makes connections, ours first: how many a second says the benchmark."""
    pytest.importorskip("python_socks")
    said = run("client.py", "--rounds", "1", "--seconds", "0.2", "--at-once", "4")
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()[1:]
    names = ["socksproxy", "txtorcon", "python-socks", "TCP4ClientEndpoint"]
    if importlib.util.find_spec("txtorcon") is None:
        names.remove("txtorcon")
    assert [line.split()[0] for line in lines] == names
    assert all(int(line.split()[1].replace(",", "")) > 0 for line in lines)
