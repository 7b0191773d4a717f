"""
Twisted's global reactor, for callers that pass no reactor.
"""

from __future__ import annotations

from typing import Any


def global_reactor() -> Any:
    """
    The reactor of this process.

    The import installs a reactor where the program has chosen none. So it waits until a reactor is needed.
    """
    from twisted.internet import reactor

    return reactor
