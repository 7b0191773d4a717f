"""The run with a store that fails tells how long clients wait."""

from __future__ import annotations

import socket
import threading

import store_outage
from store_outage import Session, Traffic


def sessions(*late: tuple[float, float]) -> list[Session]:
    """A hundred a second for 8 seconds, each 2 ms; those that begin within *late* wait for its end."""
    found = []
    for number in range(800):
        due = number / 100
        ends = [end for begin, end in late if begin <= due < end]
        found.append(Session(due, ends[0] - due if ends else 0.002, True))
    return found


def test_lines() -> None:
    """Each part of the run is told, and what is late beside what is usual."""
    before, during, after, all_, *rest = store_outage.lines("stopped", sessions(), 2.0)
    for line, words in ((before, "before"), (during, "during"), (after, "after")):
        assert line == f"stopped {words}: 100 sessions/s, p99 of each window in ms: {' '.join(['2'] * 8)}"
    assert all_ == (
        "stopped: usual p99 2.0 ms, the worst window's 2.0 ms; 0 windows over the usual + 50 ms, "
        "0 sessions so late; 0 of 800 refused"
    )
    assert not rest
    *_, all_, fails = store_outage.lines("stopped", sessions((4.0, 4.095)), 2.0)
    assert "the worst window's 92.6 ms; 1 windows over the usual + 50 ms, 5 sessions so late" in all_
    assert fails == (
        "stopped, when the store fails: 5 sessions late, begun 0.000 to 0.040 s after that, the longest 95 ms"
    )


def test_traffic() -> None:
    """Sessions begin at the rate, and what is refused is told; what is to happen happens in its time."""
    answers = [b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01", b"\x05\x00\x05\x02" + bytes(8), b""]

    def serve() -> None:
        for answer in answers * 5:
            link = listening.accept()[0]
            link.recv(64)
            link.sendall(answer)
            link.close()

    happened = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        traffic = Traffic(listening.getsockname()[1], 80, 50, [(0.1, happened.set)])
        found = traffic.run(0.29)
        thread.join()
    assert len(found) == 15
    assert [session.due for session in found] == [number / 50 for number in range(15)]
    assert sum(session.good for session in found) == 5
    assert happened.wait(60)
