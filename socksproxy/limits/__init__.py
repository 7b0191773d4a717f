"""
How much there may be: of sessions, of bytes in a second, of bytes in a month.

What is named here is the public interface: what an operator says, and the file in which it is kept how much
of the bytes of a day and a month is used.
"""

from ..values.limits import Limits, Rate, ServerLimits
from .usage import UsageFile

__all__ = ["Limits", "Rate", "ServerLimits", "UsageFile"]
