"""
What one session has in the store that nodes share, beside what is counted here.

Strategy: limits are counted on this node first, so the store is never asked about a session that is too many
here. Then the store is asked about all holders of the session at once. While the store is down, each limit's
``shared`` says how this node judges alone. What is judged so is counted in the store once it is up again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import lru_cache, partial
from typing import Any

from ..errors import OverLimit, StoreDown
from ..shared.asking import ADMITTED, DOWN, OF, Ask, Need
from ..shared.store import SharedStore
from ..values.limits import Fallback, Rate
from .account import ARRIVALS, DEVICES, WORDS, Account, too_many
from .counting import burst_of

_MICROSECONDS = 1e6
#: Rows and needs that are remembered.
_REMEMBERED = 8192

#: Sets of holders whose sessions' needs are remembered.
_MOST_PLANS = 4096

#: The account that refuses a session, and why.
Refusal = tuple[Account, OverLimit]
#: Accounts, and the kinds of what a session has of each.
_Taken = tuple[tuple[Account, str], ...]


class _SharedAsk:
    """
    What was asked of the store at once.

    :ivar needed: the account and the kind of each need.
    :ivar ahead: the kind that is not counted here yet; None: all are.
    :ivar answered: called with the answer; None: it is known at once, or nobody waits.
    :ivar settled: whether the store counts it, or will.
    :ivar refused: the account that refuses, and why; None: it is not refused.
    """

    __slots__ = ("ahead", "answered", "needed", "refused", "settled")

    def __init__(self, needed: list[tuple[Account, str]], ahead: str | None) -> None:
        self.needed = needed
        self.ahead = ahead
        self.answered: Callable[[Refusal | None], None] | None = None
        self.settled = False
        self.refused: Refusal | None = None


#: What is the store's word already.
_SETTLED = _SharedAsk([], None)
_SETTLED.settled = True


class _Plan:
    """
    What the sessions of the same accounts need, found once for all of them.

    :ivar limits: the accounts, and the limits that it follows from.
    :ivar needed: the account and the kind of each of the needs.
    :ivar needs: what they need.
    :ivar rows: where they have their places then.
    :ivar held: the accounts and kinds of these.
    :ivar paced: the accounts whose rates are among the needs.
    """

    __slots__ = ("held", "limits", "needed", "needs", "paced", "rows")

    def __init__(self, taken: _Taken, accounts: tuple[Account, ...], device: str) -> None:
        self.needed, self.needs = needed, _ = _needs(taken, accounts, device, (), ())
        self.limits = [(account, account.limits) for account in accounts]
        self.held = {key: _SETTLED for key in needed if key[1] is not ARRIVALS}
        self.rows = [need.key for need in self.needs if need.burst is None]
        self.paced = {account for account, kind in needed if kind is ARRIVALS}


class SharedClaims:
    """
    The places of one session in the rows of the store.

    Strategy: most sessions find in hand all that they need. What these have is the same for all with the same
    accounts, and none of them has a table of its own until it differs.

    :param store: the store.
    :ivar pending: how many answers are missing.
    :ivar device: the address by which the session counts as a device; set before one is counted.
    """

    __slots__ = ("_asked", "_held", "_paced", "_plan", "device", "pending", "store")

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.device = ""
        self.pending = 0
        self._held: dict[tuple[Account, str], _SharedAsk] = {}
        self._paced: set[Account] = set()
        #: Whose tables these are; None: the session's own.
        self._plan: _Plan | None = None
        #: What was asked about last.
        self._asked: tuple[_Taken, tuple[Account, ...]] | None = None

    def ask_about(
        self,
        plans: dict[object, Any],
        taken: _Taken,
        accounts: tuple[Account, ...],
        answered: Callable[[Refusal | None], None],
    ) -> Refusal | None:
        """
        Ask the store about what it has not been asked about yet, unless all of it is in hand.

        :param plans: what sessions of the same accounts need.
        :param taken: accounts, and the kinds of what the session has of each.
        :param accounts: all accounts of the session.
        :param answered: see :meth:`ask`; so is what is returned.
        """
        before, self._asked = self._asked, (taken, accounts)
        if before == self._asked:
            return None
        if before is not None or self._held:
            return self.ask(taken, accounts, None, answered)
        key = self.device, taken, accounts
        plan: _Plan | None = plans.get(key)
        if plan is None or any(account.limits is not limits for account, limits in plan.limits):
            if len(plans) >= _MOST_PLANS:
                plans.clear()
            plan = plans[key] = _Plan(taken, accounts, self.device)
        if not self.store.take(plan.needs):
            return self._ask(plan.needed, plan.needs, None, answered)
        self._plan, self._held, self._paced = plan, plan.held, plan.paced
        return None

    def _differ(self) -> None:
        """The session has tables of its own from now on."""
        if self._plan is not None:
            self._plan, self._held, self._paced = None, dict(self._held), set(self._paced)

    def ask(
        self,
        taken: Iterable[tuple[Account, str]],
        begun: Iterable[Account],
        ahead: str | None,
        answered: Callable[[Refusal | None], None],
    ) -> Refusal | None:
        """
        Ask the store about what it has not been asked about yet.

        :param taken: accounts, and the kinds of what the session has of each.
        :param begun: the accounts under which the session has begun.
        :param ahead: the kind in *taken* that is not counted here yet; None: all are.
        :param answered: called with the answer, if it is not known at once; None: the session is admitted.
        :returns: the account that refuses, and why, if that is known at once; None: it is not refused, or
            :attr:`pending` says that answers are missing.
        """
        needed, needs = _needs(taken, begun, self.device, self._held, self._paced)
        return self._ask(needed, needs, ahead, answered)

    def _ask(
        self,
        needed: list[tuple[Account, str]],
        needs: list[Need],
        ahead: str | None,
        answered: Callable[[Refusal | None], None],
    ) -> Refusal | None:
        if not needs:
            return None
        self._differ()
        asked = _SharedAsk(needed, ahead)
        for key in needed:
            if key[1] is ARRIVALS:
                self._paced.add(key[0])
            else:
                self._held[key] = asked
        self.pending += 1
        self.store.ask(Ask(needs, partial(self._judged, asked)))
        if not asked.settled:
            asked.answered = answered
        return asked.refused

    def _judged(self, asked: _SharedAsk, answer: int) -> None:
        self.pending -= 1
        refused: Refusal | None = None
        if answer == DOWN:
            refused = self._judge_alone(asked)
        elif answer != ADMITTED:
            account, kind = asked.needed[answer - 1]
            refused = account, too_many(account, kind, " on all nodes")
        asked.settled = True
        for key in asked.needed:
            if key[1] is ARRIVALS:
                continue
            held = self._held.get(key) is asked
            if refused is not None and held:
                del self._held[key]
            elif refused is None and held != (answer == ADMITTED):
                # It has ended before the store has counted it; or it goes on, and the store is down.
                self.store.count(self._row(*key), 1 if held else -1)
        asked.refused = refused
        if asked.answered is not None:
            asked.answered(refused)

    def _judge_alone(self, asked: _SharedAsk) -> Refusal | None:
        nodes = self.store.nodes
        for account, kind in asked.needed:
            how = account.limits.shared
            if how is Fallback.STRICT:
                return account, StoreDown(f"no {WORDS[kind]}{account.of}: the shared store is down")
            if how is Fallback.LOCAL:
                continue
            if kind is ARRIVALS:
                pace = account.part_of_arrivals(nodes)
                room = pace is None or pace.take()
            else:
                count = account.count(kind) + (kind == asked.ahead)
                room = count <= max(getattr(account.limits, kind) // nodes, 1)
            if not room:
                where = f" on one of {nodes} nodes: the shared store is down"
                return account, too_many(account, kind, where)
        return None

    def give(self, account: Account, kind: str) -> None:
        """The session does not have that any more."""
        self._differ()
        asked = self._held.pop((account, kind), None)
        if asked is not None and asked.settled:
            self.store.count(self._row(account, kind), -1)

    def follow(self, taken: Iterable[tuple[Account, str]]) -> None:
        """The session goes on with what is *taken*; it is counted, whatever the store says."""
        self._differ()
        now = dict.fromkeys(taken)
        for key, asked in list(self._held.items()):
            if key not in now and asked.settled:
                self.give(*key)
        for key in now:
            if key not in self._held:
                asked = self._held[key] = _SharedAsk([key], None)
                asked.settled = True
                self.store.count(self._row(*key), 1)

    def close(self) -> None:
        """The session has nothing any more."""
        plan = self._plan
        if plan is not None:
            self._plan, self._held = None, {}
            self.store.leave(plan.rows)
            return
        for key in list(self._held):
            self.give(*key)

    def _row(self, account: Account, kind: str) -> str:
        return _row(account.name, kind, self.device if kind is DEVICES else "")


def _needs(
    taken: Iterable[tuple[Account, str]],
    begun: Iterable[Account],
    device: str,
    held: Container[tuple[Account, str]],
    paced: Container[Account],
) -> tuple[list[tuple[Account, str]], list[Need]]:
    """What is not *held* or *paced* yet: the account and the kind of each, and the needs."""
    needed: list[tuple[Account, str]] = []
    needs: list[Need] = []
    for key in taken:
        account, kind = key
        most = getattr(account.limits, kind)
        if most is not None and key not in held:
            needed.append(key)
            needs.append(_place(account.name, kind, most, device if kind is DEVICES else ""))
    for account in begun:
        rate = account.limits.new_sessions
        if rate is not None and rate.per_second > 0 and account not in paced:
            needed.append((account, ARRIVALS))
            needs.append(_beginning(account.name, rate))
    return needed, needs


# Sessions of the same holders come again and again.


@lru_cache(_REMEMBERED)
def _row(name: str, kind: str, device: str) -> str:
    return f"d:{name} {kind}{OF}{device}" if device else f"n:{name} {kind}"


@lru_cache(_REMEMBERED)
def _place(name: str, kind: str, most: int, device: str) -> Need:
    return Need(_row(name, kind, device), most)


@lru_cache(_REMEMBERED)
def _beginning(name: str, rate: Rate) -> Need:
    return Need(f"r:{name} arrivals", _MICROSECONDS / rate.per_second, burst_of(rate))
