"""
What one process answers about users, locked-out addresses and limits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed

from ..limits.account import ASSOCIATIONS, BINDS, SESSIONS, Account, Scope
from ..logs.printable import line_of_record
from ..shared.commands import Deed
from ..values.limits import Limits, Rate
from .selection import Seen

if TYPE_CHECKING:
    from ..session.shared import ServerContext

#: Users, addresses and holders that one answer has, and accounts that are looked at in one turn.
MOST_TOLD = 1000
_AT_ONCE = 64

#: The question to one process, which tells the store of a command for all nodes.
TELL_NODES = "tell nodes"

#: What users can be sorted by: which of their numbers. The name sorts the other way round.
USER_ORDERS = {"sessions": 0, "bytes": 1, "rate": 3, "name": None}

Work = Generator[object, None, Any]


class HolderAnswers:
    """
    Answers about holders of limits.

    :param context: what the sessions of the process share.
    :param worker: the number of the process.
    :param look: gives all sessions, some at a time.
    """

    def __init__(self, context: ServerContext, worker: int, look: Callable[[], Iterator[list[Seen]]]) -> None:
        self._context = context
        self._worker = worker
        self._look = look

    def users(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """Users with sessions, or who have logged in since the first such question."""
        if self._context.last_logins is None:
            self._context.last_logins = {}
        only = arguments["user"]
        # Two names that are shown in the same way are one here.
        only = None if only is None else line_of_record(only)
        return self._users(arguments["sort"], arguments["limit"], only, arguments["beyond"])

    def _users(self, sort: str, limit: int, only: str | None, beyond: str | None) -> Work:
        users: dict[str, list[float]] = {}
        for some in self._look():
            for seen in some:
                user = seen.session.client.user
                if user is None:
                    continue
                user = line_of_record(user)
                if (only is not None and user != only) or (beyond is not None and user <= beyond):
                    continue
                service = seen.session.service
                row = users.setdefault(user, [0, 0, 0, 0.0])
                row[0] += 1
                row[3] += seen.rate
                if service is not None:
                    counts = service.counts()
                    row[1] += counts.sent
                    row[2] += counts.received
            yield None
        logins = self._context.last_logins or {}
        now = time.time()
        place = USER_ORDERS[sort]
        if place is None:
            chosen = sorted(users)
        else:
            chosen = sorted(users, key=lambda user: (-_number(users[user], place), user))
        if only is not None and only not in users and only in logins:
            chosen.append(only)
        return {
            "worker": self._worker,
            "total": len(users),
            "users": {
                user: [*users.get(user, (0, 0, 0, 0.0)), now if user in users else logins.get(user)]
                for user in chosen[:limit]
            },
        }

    def lockouts(self, arguments: Mapping[str, Any], parts: list[bytes]) -> dict[str, Any]:
        """The addresses whose clients may not try a password now."""
        authentication = self._context.authentication
        # One more than is told: then there are more.
        locked = [] if authentication is None else authentication.penalties.locked_out(MOST_TOLD + 1)
        return {"worker": self._worker, "lockouts": [list(each) for each in locked]}

    def unlock(self, arguments: Mapping[str, Any], parts: list[bytes]) -> dict[str, Any]:
        """Let the clients of an address try passwords again."""
        authentication = self._context.authentication
        done = authentication is not None and authentication.penalties.forgive(arguments["address"])
        return {"worker": self._worker, "unlocked": done}

    def tell_nodes(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Deferred[dict[str, Any]]:
        """Tell the other nodes of a command. ``sent``: whether the store has it; None: there is no store."""
        store = self._context.settings.shared
        if store is None:
            return succeed({"sent": None})
        sent = store.commands.send(Deed(arguments["deed"]), arguments["about"], arguments["by"])
        return sent.addCallback(lambda told: {"sent": told})

    def limits(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """Holders of limits with sessions, and how much of their limits is taken."""
        scope = arguments["scope"]
        wanted = None if scope is None else Scope(scope)
        return self._limits(wanted, arguments["full"])

    def _limits(self, scope: Scope | None, full: bool) -> Work:
        rows: list[Any] = []
        accounts = list(self._context.ledger.held)
        for start in range(0, len(accounts), _AT_ONCE):
            for account in islice(accounts, start, start + _AT_ONCE):
                if scope is not None and account.place[0] is not scope:
                    continue
                row = _told(account)
                if not full or row["full"]:
                    rows.append(row)
            yield None
        return {"worker": self._worker, "total": len(rows), "limits": rows[:MOST_TOLD]}


def _number(row: list[float], place: int) -> float:
    return row[1] + row[2] if place == 1 else row[place]


def _told(account: Account) -> dict[str, Any]:
    scope, holder = account.place
    kinds = [kind for kind in (SESSIONS, BINDS, ASSOCIATIONS) if _limits(account, kind)]
    now = {kind: account.counter(kind).value for kind in kinds}
    full = any(count >= _limits(account, kind) for kind, count in now.items())
    if account.quota is not None and not account.quota.available():
        full = True
    return {
        "scope": scope.value,
        "holder": line_of_record(str(holder)),
        "limits": limits_told(account.limits),
        "now": now,
        "full": full,
    }


def _limits(account: Account, kind: str) -> Any:
    return getattr(account.limits, kind)


def limits_told(limits: Limits | None) -> dict[str, Any]:
    """*limits* as JSON has them: the keys of the file, and plain numbers; what is not limited is left out."""
    found: dict[str, Any] = {}
    for name, value in {}.items() if limits is None else attrs.asdict(limits, recurse=False).items():
        if value is None or name == "shared":
            continue
        key = name.replace("_", "-")
        if isinstance(value, Rate):
            found[key] = {"rate": value.per_second, "burst": value.burst}
        else:
            found[key] = value
    return found


def lines_told(rows: list[tuple[str, str, int]]) -> bytes:
    """Rows of the usage file as lines of JSON."""
    return b"".join(
        json.dumps({"period": period, "holder": holder, "bytes": amount}).encode() + b"\n"
        for period, holder, amount in rows
    )
