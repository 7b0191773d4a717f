"""
Named sets of networks and of names, and files that hold a million entries.
"""

from .files import NamesFile, NetworksFile, SetFile, SetFileError
from .hosts import HostSet, HostWatch
from .named_sets import BUILT_IN, Sets
from .tables import HoldsNames, HoldsNetworks, NameTable, NetworkTable, glob
from .watch import SetFiles

__all__ = [
    "BUILT_IN",
    "HoldsNames",
    "HoldsNetworks",
    "HostSet",
    "HostWatch",
    "NameTable",
    "NamesFile",
    "NetworkTable",
    "NetworksFile",
    "SetFile",
    "SetFileError",
    "SetFiles",
    "Sets",
    "glob",
]
