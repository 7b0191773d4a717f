"""
Failures and lock-outs of addresses that hold for all nodes that share a store.

Strategy: each node counts failures as without a store, and tells the store of each one. The store counts the
failures of all nodes, and answers with the time for which the address is refused. So a client that guesses on
several nodes in turn is locked out after as many failures as on one. The other nodes learn of it from the
stream of commands, within a second or with the next failure there. No session waits for that: while the store
is down, each node counts for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from ..shared.asking import Job
from ..shared.commands import Deed, NodeCommand
from ..shared.scripts import COMMANDS, FAILED, FORGIVEN, UNLOCK
from ..shared.store import SharedStore


class SharedPenalties:
    """
    Tells the store of failures, and this process of lock-outs.

    :param store: the store.
    :param times: seconds in which failures are counted, of the first penalty, of the longest one, and
        without a failure until a penalty is forgotten.
    :param lock: called with a network that is refused from now on, for how many seconds, and with the number
        of the penalty.
    """

    def __init__(
        self,
        store: SharedStore,
        times: tuple[float, float, float, float],
        lock: Callable[[str, float, int], None],
    ) -> None:
        self.store = store
        self._times = [int(seconds * 1000) for seconds in times]
        self._lock = lock
        store.commands.obey[Deed.LOCK] = self._locked

    def _locked(self, command: NodeCommand) -> None:
        self._lock(command.about, command.lasts, command.level)

    def failed(self, network: str, username: bytes, most: int) -> None:
        """
        A check has failed.

        :param most: how many failures a network may have.
        """

        def done(answer: list[Any] | None) -> None:
            if answer is not None and answer[0]:
                self._lock(network, int(answer[0]) / 1000, int(answer[1]))

        keys = [f"f:{network}", f"l:{network}", COMMANDS]
        self.store.run(Job(FAILED, keys, [_hashed(username), most, *self._times, network], done))

    def succeeded(self, network: str, username: bytes) -> None:
        """A check has succeeded: the failures of that user from there are forgiven, and no others."""
        self.store.run(Job(FORGIVEN, [f"f:{network}"], [_hashed(username)], lambda _: None))

    def forgive(self, network: str) -> None:
        """Forget the failures and the penalty of *network*."""
        self.store.run(Job(UNLOCK, [f"f:{network}", f"l:{network}"], [], lambda _: None))


def _hashed(username: bytes) -> str:
    """Stands for a name, which may be a password that a user has typed in the wrong place."""
    return blake2b(username, digest_size=8).hexdigest()
