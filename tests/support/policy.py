"""A policy whose answers are a test's to give."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from socksproxy import Address, Client, Command, IPolicy


@implementer(IPolicy)
class Policy:
    """
    Answers from a table.

    :param answers: by host: an answer, or what makes one when called. Other hosts are permitted.
    :ivar asked: what it was asked, in order.
    """

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[Client, Command, Address]] = []

    def permits(self, client: Client, command: Command, destination: Address) -> Any:
        """See :meth:`socksproxy.IPolicy.permits`."""
        self.asked.append((client, command, destination))
        answer = self.answers.get(destination.host, True)
        return answer() if callable(answer) else answer
