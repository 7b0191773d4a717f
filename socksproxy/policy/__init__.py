"""
Who may reach what.

:class:`IPolicy` is what the server asks. :class:`RulePolicy` answers by rules. :class:`DefaultPolicy` is the
policy of a server that has no other one: it is safe for a proxy whose clients are on other machines.

The names in ``__all__`` are the public interface.
"""

from .compiled import RulePolicy
from .default import DefaultPolicy
from .interfaces import ICommandPolicy, IDecidingPolicy, INamePolicy, IPolicy
from .rules import Rule, RuleError, RuleTimeouts
from .sets import HostSet, NamesFile, NetworksFile, SetFiles, Sets

__all__ = [
    "DefaultPolicy",
    "HostSet",
    "ICommandPolicy",
    "IDecidingPolicy",
    "INamePolicy",
    "IPolicy",
    "NamesFile",
    "NetworksFile",
    "Rule",
    "RuleError",
    "RulePolicy",
    "RuleTimeouts",
    "SetFiles",
    "Sets",
]
