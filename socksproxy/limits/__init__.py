"""
How much a client may have at once, in a second, in a day and in a month.

The names in ``__all__`` are the public interface.
"""

from ..values.limits import Limits, Rate, ServerLimits
from .quota.usage import UsageFile

__all__ = ["Limits", "Rate", "ServerLimits", "UsageFile"]
