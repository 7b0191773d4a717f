"""
The ways out: how connections and datagrams leave for their destinations.

Each name is imported when it is first used: ``python -m socksproxy check`` does without the relay engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .own import ICommandsRoute, IRoute
    from .pool import Pool
    from .upstream import UpstreamRoute

__all__ = ["ICommandsRoute", "IRoute", "Pool", "UpstreamRoute"]

_MODULES = {"ICommandsRoute": "own", "IRoute": "own", "Pool": "pool", "UpstreamRoute": "upstream"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
