#!/usr/bin/env python3
"""
``twist`` that writes down how long the calls of its reactor take: ``watched_turns.py socks ...``.

Once a second the file ``turns`` in the working directory gets the longest calls so far, in milliseconds of
the thread's processor time. So what other programs do on the machine is not in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.twist._twist import Twist
from twisted.internet import base, epollreactor

_LONGEST: dict[str, float] = {}


def _watched(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*arguments: Any) -> Any:
        begun = time.thread_time()
        try:
            return call(*arguments)
        finally:
            took = time.thread_time() - begun
            if took > _LONGEST.get(kind, 0.0):
                _LONGEST[kind] = took

    return watched


def main() -> None:
    """Run it."""
    for kind, owner, name in (
        ("delayed calls", base.ReactorBase, "runUntilCurrent"),
        ("a descriptor", epollreactor.EPollReactor, "_doReadOrWrite"),
    ):
        setattr(owner, name, _watched(kind, getattr(owner, name)))
    Path("turns").write_text("")
    from twisted.internet import reactor, task

    def tell() -> None:
        longest = [f"{kind}: {took * 1000:.2f} ms" for kind, took in _LONGEST.items()]
        Path("turns").write_text(", ".join(longest))

    def begin() -> None:
        # What the start takes does not count.
        _LONGEST.clear()
        task.LoopingCall(tell).start(1)

    reactor.callLater(5, begin)
    Twist.main(sys.argv)


if __name__ == "__main__":
    main()
