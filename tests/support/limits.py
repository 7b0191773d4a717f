"""What a ledger has counted."""

from __future__ import annotations

from socksproxy.limits.ledger import SESSIONS, Ledger, Scope


def had(ledger: Ledger, scope: Scope, holder: str = "", kind: str = SESSIONS) -> int:
    """How many of *kind* the holder has, in a process that counts by itself."""
    account = ledger._accounts.get((scope, holder))
    if account is None or kind not in account._counters:
        return 0
    value: int = account._counters[kind].value  # type: ignore[attr-defined]
    return value
