"""
The connection to the store, by the package ``redis``. Every call blocks, so a thread makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeout,
)
from redis.retry import Retry

from ..values.shared import SharedSettings
from .asking import StoreProblem
from .scripts import Script

#: Seconds that it may take to connect and to log in.
_CONNECTING = 1.0
_COMMON: dict[str, Any] = {
    "socket_timeout": _CONNECTING,
    "retry": Retry(NoBackoff(), 0),
    "protocol": 2,
    "driver_info": None,
    "encoding_errors": "surrogateescape",
}
#: The first version that is enough.
_VERSION = (6, 2)


class ScriptCall(NamedTuple):
    """The keys and arguments with which a script is to run; the keys are whole."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]


class StoreLink:
    """
    An open connection.

    :param settings: the store.
    :ivar sent: the bytes sent so far.
    :ivar out_of_turn: whether the scripts of the last :meth:`run` have run in another order than they had.
    :raises StoreProblem: when there can be none.
    """

    def __init__(self, settings: SharedSettings) -> None:
        self.sent = 0
        self.out_of_turn = False
        #: The digests of the scripts that the server has got here.
        self._known: set[str] = set()
        self._connection = _connection(settings)
        try:
            self._connection.connect()
            self._check_version()
        except (RedisError, OSError) as problem:
            self.close()
            raise StoreProblem(_words(problem)) from None
        except StoreProblem:
            self.close()
            raise

    def _check_version(self) -> None:
        self._connection.send_command("INFO", "server")
        told = _text(self._connection.read_response()).splitlines()
        facts = dict(line.split(":", 1) for line in told if ":" in line)
        version = facts.get("redis_version", "")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < _VERSION:
            raise StoreProblem(
                f"runs version {version or 'unknown'}: Redis 6.2 or later, or Valkey, is needed"
            )

    def run(self, commands: Sequence[ScriptCall], patience: float) -> list[Any]:
        """
        Run scripts, one after the other, and return their answers.

        :param patience: seconds in which the answers have to be there.
        :raises StoreProblem: when an answer is missing, or is an error. The link must be closed then.
        """
        until = monotonic() + patience
        try:
            answers = self._exchange([self._call(each) for each in commands], until)
            unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            self.out_of_turn = 0 < len(unknown) < len(answers)
            if unknown:
                # An operator has had the server forget its scripts, and another node has told it some of them
                # again. Those that it did not know run later than the others.
                again = self._exchange([_eval(commands[number]) for number in unknown], until)
                for number, answer in zip(unknown, again, strict=True):
                    answers[number] = answer
        except (RedisError, OSError) as problem:
            raise StoreProblem(_words(problem)) from None
        for answer in answers:
            if isinstance(answer, Exception):
                raise StoreProblem(_words(answer))
        return answers

    def _call(self, command: ScriptCall) -> tuple[Any, ...]:
        """
        The words that run a script: the first time here its text, or the digest.

        By the digest, a script that the server does not know would run later than those behind it.
        """
        digest = command.script.digest
        if digest in self._known:
            return ("EVALSHA", digest, len(command.keys), *command.keys, *command.arguments)
        self._known.add(digest)
        return _eval(command)

    def _exchange(self, commands: Sequence[tuple[Any, ...]], until: float) -> list[Any]:
        packed = _packed(commands)
        self.sent += len(packed)
        self._connection.send_packed_command([packed], check_health=False)
        answers: list[Any] = []
        for _ in commands:
            left = max(until - monotonic(), 0.001)
            try:
                answers.append(self._connection.read_response(timeout=left, disconnect_on_error=False))
            except ResponseError as problem:
                answers.append(problem)
        return answers

    def close(self) -> None:
        """Close the connection."""
        with suppress(Exception):
            self._connection.disconnect()


def _eval(command: ScriptCall) -> tuple[Any, ...]:
    return ("EVAL", command.script.text, len(command.keys), *command.keys, *command.arguments)


def _packed(commands: Sequence[tuple[Any, ...]]) -> bytes:
    """The bytes of *commands*. The function of the package redis does the same in three times the time."""
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d\r\n" % len(words))
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _connection(settings: SharedSettings) -> AbstractConnection:
    address = settings.store
    login = {
        "db": address.database,
        "username": address.user,
        "password": settings.password or address.password,
    }
    if address.path is not None:
        return UnixDomainSocketConnection(  # type: ignore[abstract]
            path=address.path, **login, **_COMMON
        )
    place = address.places[0] if address.service is None else _asked(settings)
    return _to(place, settings, **login)


def _to(place: tuple[str, int], settings: SharedSettings, **login: Any) -> AbstractConnection:
    host, port = place
    more: dict[str, Any] = {**login, **_COMMON, "socket_connect_timeout": _CONNECTING}
    if not settings.store.tls:
        return Connection(host=host, port=port, **more)
    return SSLConnection(host=host, port=port, ssl_ca_certs=settings.ca_file, ssl_check_hostname=True, **more)


def _asked(settings: SharedSettings) -> tuple[str, int]:
    """Where the server is now, as the first Sentinel says that answers."""
    service = settings.store.service
    for place in settings.store.places:
        sentinel = _to(place, settings)
        try:
            sentinel.connect()
            sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
            answer = sentinel.read_response()
        except (RedisError, OSError):
            continue
        finally:
            with suppress(Exception):
                sentinel.disconnect()
        if answer:
            host, port = map(_text, answer)
            return host, int(port)
    raise StoreProblem(f"no Sentinel knows a server for {service}")


def _text(answer: Any) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def _words(problem: Exception) -> str:
    """What an operator reads of *problem*; the server's own words begin with one in capitals."""
    if isinstance(problem, AuthenticationError):
        return f"refuses the login ({problem})"
    if isinstance(problem, (RedisTimeout, TimeoutError)):
        return "does not answer in time"
    system = problem if isinstance(problem, OSError) else problem.__context__
    if isinstance(system, OSError) and system.strerror:
        return system.strerror.lower()
    return str(problem) or type(problem).__name__
