"""
External helpers that judge requests: rules name them (the field *ask*), and have the first word.

Strategy: an answer is remembered for as long as the helper's settings say, and a question that is being
asked is not asked again. A helper that cannot tell denies, and that answer is not remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..helpers.helper import Helper
from ..helpers.lines import HelperAnswer, HelperVerdict
from ..identity import Client
from ..logs.printable import printable
from ..logs.throttle import LogThrottle
from ..runtime.recent import Recent
from ..values.helpers import CODES, HelperSettings
from ..wire.words import Command

_log = Logger(namespace="socksproxy")

#: Answers of one helper that are remembered.
MOST_REMEMBERED = 10000

_Words = tuple["bytes | None", ...]


class RequestHelper:
    """
    Asks one helper whether requests are permitted.

    :param reactor: starts the processes and keeps time.
    :param name: for the log.
    :param settings: of the helper.
    """

    def __init__(self, reactor: Any, name: str, settings: HelperSettings) -> None:
        self.name = name
        self.settings = settings
        self._helper = Helper(reactor, settings)
        self._answers: Recent[_Words, bool] = Recent(reactor, MOST_REMEMBERED)
        self._asking: dict[_Words, list[Deferred[bool]]] = {}
        self._throttle = LogThrottle(reactor)
        #: Of each word of a question the field that it stands for, or the word itself.
        self._format = [(CODES.get(word), word.encode()) for word in settings.format.split()]

    def permits(self, client: Client, command: Command, host: str, port: int) -> bool | Deferred[bool]:
        """
        Whether the helper permits a request, at once where the answer is known.

        :param host: the name or the literal address of the destination.
        """
        words = self._words(client, command, host, port)
        known = self._answers.get(words)
        if known is not None:
            return known
        waiting = self._asking.get(words)
        if waiting is None:
            waiting = self._asking[words] = []
            self._helper.ask(words).addCallback(self._answered, words)
            if words not in self._asking:  # the helper cannot tell, and has said so at once
                return False
        result: Deferred[bool] = Deferred(partial(_forget, waiting))
        waiting.append(result)
        return result

    def close(self) -> None:
        """End the helper's processes when they have answered."""
        self._helper.close()

    def _words(self, client: Client, command: Command, host: str, port: int) -> _Words:
        fields: dict[str, str | None] = {
            "client": client.host,
            "client_port": str(client.port),
            "user": client.user,
            "command": command.name,
            "host": host,
            "port": str(port),
        }
        words: list[bytes | None] = []
        for field, word in self._format:
            value = word if field is None else fields[field]
            words.append(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
        return tuple(words)

    def _answered(self, answer: HelperAnswer, words: _Words) -> None:
        yes = answer.verdict is HelperVerdict.YES
        if answer.verdict is HelperVerdict.BROKEN:
            if self._throttle.due():
                message = printable(answer.message) or "it cannot tell"
                _log.warn("helper {name}: {message}; requests are denied", name=self.name, message=message)
        else:
            seconds = self.settings.ttl if yes else self.settings.negative_ttl
            self._answers.put(words, yes, seconds)
        waiting = self._asking.pop(words)
        while waiting:  # a callback may cancel another one
            waiting.pop(0).callback(yes)


def _forget(waiting: list[Deferred[bool]], result: Deferred[bool]) -> None:
    if result in waiting:
        waiting.remove(result)


class RequestHelpers:
    """
    The helpers of a server, by their names.

    :param reactor: starts the processes and keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._helpers: dict[str, RequestHelper] = {}
        #: Those that the last reload has taken away: requests under the rules before it may ask them.
        self._gone: dict[str, RequestHelper] = {}

    def __bool__(self) -> bool:
        return bool(self._helpers)

    def follow(self, settings: Mapping[str, HelperSettings]) -> None:
        """
        Have the helpers of *settings*.

        A helper whose settings stay keeps its processes and answers. Another one answers the questions that
        wait, and ends.
        """
        before, self._helpers = self._helpers, {}
        for name, each in settings.items():
            kept = before.get(name)
            if kept is None or kept.settings != each:
                kept = RequestHelper(self._reactor, name, each)
            self._helpers[name] = kept
        for helper in before.values():
            if self._helpers.get(helper.name) is not helper:
                helper.close()
        self._gone = {name: helper for name, helper in before.items() if name not in settings}

    def close(self) -> None:
        """End the processes when they have answered; a further question starts them again."""
        for helper in (*self._helpers.values(), *self._gone.values()):
            helper.close()

    def permits(
        self, name: str, client: Client, command: Command, host: str, port: int
    ) -> bool | Deferred[bool]:
        """See :meth:`RequestHelper.permits`; a helper that there is not denies."""
        helper = self._helpers.get(name) or self._gone.get(name)
        return False if helper is None else helper.permits(client, command, host, port)
