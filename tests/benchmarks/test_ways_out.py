"""The figures of ways out: the script runs, with this server as the upstream and with little load."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import ways_out


def test_runs(generator: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each load gets through the upstream and, by the client's own chain, without it."""
    own = {name: way for name, way in ways_out.WAYS.items() if name in (ways_out.DIRECT, ways_out.OURS)}
    monkeypatch.setattr(ways_out, "WAYS", own)
    little = ["--rounds", "1", "--scale", "0.01", "--upstream", "socksproxy"]
    assert ways_out.main([*little, "rtt", "udp"]) == 0
    told, complaints = capsys.readouterr()
    assert complaints == ""
    for part in ("rtt", "udp"):
        assert f"\n{part}: " in told
    assert "  without: " in told


def test_failed_runs_do_not_count() -> None:
    """A run in which sessions failed is neither in the median nor in a ratio."""
    found: ways_out.Found = {
        ways_out.OURS: [{"per_s": 100.0}, {}, {"per_s": 300.0}],
        "v2ray": [{"per_s": 200.0}, {"per_s": 900.0}, {}],
        "3proxy": [{}, {}, {}],
    }
    told = list(ways_out.lines("rate", found))
    assert told[0].startswith("rate: 200 connections/s")
    assert told[1].startswith("  v2ray: 550, ratio 0.5")
    assert told[2].startswith("  3proxy: unknown, ratio unknown")


def test_black_hole() -> None:
    """SYNs are dropped, and the origin tells who has come directly."""
    with ways_out.dropping() as hole, socket.create_server(("127.0.0.1", 0)) as origin:
        with pytest.raises(TimeoutError), socket.create_connection(("127.0.0.1", hole), 0.2):
            pass
        origin.setblocking(False)
        for host in ("127.0.0.1", "127.0.0.3"):
            socket.create_connection(origin.getsockname(), 5, (host, 0)).close()
        assert ways_out.came(origin) == ["127.0.0.1", "127.0.0.3"]
