"""
The settings of authentication, beside the sources of users.
"""

from __future__ import annotations

import attrs

from .timeouts import NEVER, positive


@attrs.frozen(kw_only=True)
class AuthSettings:
    """
    The settings of authentication.

    :ivar timeout: seconds in which the portal must have decided.
    :ivar failures: wrong passwords in a minute after which an address is refused for a while; None: no limit.
    """

    timeout: float = attrs.field(default=8.0, validator=[positive, attrs.validators.lt(NEVER)])
    failures: int | None = 10
