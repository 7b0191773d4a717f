"""
Units, the values of options, and settings that several packages use.

The names in ``__all__`` are the public interface.
"""

from .pools import UpstreamPool
from .timeouts import NEVER
from .udp import Filtering
from .upstreams import Upstream

__all__ = ["NEVER", "Filtering", "Upstream", "UpstreamPool"]
