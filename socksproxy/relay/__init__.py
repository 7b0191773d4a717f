"""
The relay: bytes both ways between two connected ends until both directions are closed.

There are two, and one contract (``tests/relay``) holds for both:
:mod:`~socksproxy.relay.engine` moves bytes between plain sockets with an epoll of
its own; :mod:`~socksproxy.relay.transports` works with any of Twisted's transports.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorFDSet

if TYPE_CHECKING:
    from .engine import RelayEngine

_engines: WeakKeyDictionary[Any, RelayEngine] = WeakKeyDictionary()


def engine_for(reactor: Any) -> RelayEngine | None:
    """
    The engine of *reactor*, made when it is first asked for.

    :returns: None where there can be none: no epoll, no splice, or a reactor that watches no descriptors.
    """
    engine = _engines.get(reactor)
    if engine is not None and not engine.closed:
        return engine
    if not (hasattr(select, "epoll") and hasattr(os, "splice") and IReactorFDSet.providedBy(reactor)):
        return None
    from .engine import RelayEngine

    engine = _engines[reactor] = RelayEngine(reactor)
    return engine
