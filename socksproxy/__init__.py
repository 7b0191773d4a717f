"""
A SOCKS4, SOCKS4a and SOCKS5 server for Twisted.

What is named here is the public interface; everything else may change.
"""

from .commands.bind import BindSettings
from .errors import SOCKSError
from .identity import Client
from .net.resolve import make_resolver
from .policy import DefaultPolicy, IPolicy
from .policy.compiled import RulePolicy
from .policy.rules import Rule, RuleError
from .policy.sets import Sets
from .runtime.clocks import use_monotonic_clock
from .server.factory import SOCKSFactory, SOCKSProtocol
from .values.timeouts import Timeouts
from .values.udp import Filtering, UDPSettings
from .wire.words import Address, AddressType, Command, Reply

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AddressType",
    "BindSettings",
    "Client",
    "Command",
    "DefaultPolicy",
    "Filtering",
    "IPolicy",
    "Reply",
    "Rule",
    "RuleError",
    "RulePolicy",
    "SOCKSError",
    "SOCKSFactory",
    "SOCKSProtocol",
    "Sets",
    "Timeouts",
    "UDPSettings",
    "make_resolver",
    "use_monotonic_clock",
]
