"""
Names, addresses, ports and sockets: what the other rooms need of the network.

The names in ``__all__`` are the public interface.
"""

from .resolve import make_resolver
from .reverse import IReverseResolver

__all__ = ["IReverseResolver", "make_resolver"]
