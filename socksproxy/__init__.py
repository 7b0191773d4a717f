"""
A SOCKS4, SOCKS4a and SOCKS5 server for Twisted.

The names in ``__all__``, here and in the packages below, are the public interface.

Each name is imported when it is first used: ``python -m socksproxy check`` starts without the server.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .errors import SOCKSError
    from .identity import Client
    from .policy import IPolicy, Rule, RulePolicy
    from .runtime.clocks import use_monotonic_clock
    from .server.factory import SOCKSFactory
    from .settings import ServerSettings
    from .values.bind import BindSettings
    from .values.timeouts import Timeouts
    from .values.udp import UDPSettings
    from .wire.words import Address, AddressType, Command, Reply

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AddressType",
    "BindSettings",
    "Client",
    "Command",
    "IPolicy",
    "Reply",
    "Rule",
    "RulePolicy",
    "SOCKSError",
    "SOCKSFactory",
    "ServerSettings",
    "Timeouts",
    "UDPSettings",
    "use_monotonic_clock",
]

_MODULES = {
    "Address": "wire.words",
    "AddressType": "wire.words",
    "BindSettings": "values.bind",
    "Client": "identity",
    "Command": "wire.words",
    "IPolicy": "policy",
    "Reply": "wire.words",
    "Rule": "policy",
    "RulePolicy": "policy",
    "SOCKSError": "errors",
    "SOCKSFactory": "server.factory",
    "ServerSettings": "settings",
    "Timeouts": "values.timeouts",
    "UDPSettings": "values.udp",
    "use_monotonic_clock": "runtime.clocks",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
