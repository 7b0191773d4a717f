"""
What the operator may say about authentication, beside who knows the users.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class AuthSettings:
    """
    How clients are asked who they are.

    :ivar timeout: seconds in which the portal must have decided.
    :ivar failures: wrong passwords in a minute after which an address is refused for a while;
        None: any number.
    """

    timeout: float = 8.0
    failures: int | None = 10
