"""
A SOCKS proxy with an authentication method of its own: ``python method.py [ENDPOINT]``.

Its number is 0x80: RFC 1928 leaves those from there to 0xFE to everybody. No password is sent:

* the server says 16 random bytes, the challenge;
* the client says how long its name is (a byte), the name, and the HMAC-SHA256 of the challenge
  under its password (32 bytes);
* the server says 0 if that is right, else 1 and closes.
"""

import hmac
import os
import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from zope.interface import implementer

from socksproxy import Client, SOCKSFactory
from socksproxy.auth import IExchange, IMethod, LogIn, Realm, Say


@implementer(IUsernameHashedPassword)
class Answer:
    """What a checker is shown; Twisted's checkers of passwords know this kind."""

    def __init__(self, username: bytes, challenge: bytes, answer: bytes) -> None:
        self.username = username
        self._challenge = challenge
        self._answer = answer

    def checkPassword(self, password: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(password, self._challenge, "sha256"), self._answer)


@implementer(IExchange)
class ChallengeExchange:
    """One client's conversation."""

    def __init__(self) -> None:
        self.challenge = b""

    def receive(self, data: bytes) -> tuple[int, object]:
        if not self.challenge:
            self.challenge = os.urandom(16)
            return 0, Say(self.challenge)
        end = 1 + data[0] if data else 1
        if len(data) < end + 32:
            return 0, None  # there is more to come
        return end + 32, LogIn(Answer(data[1:end], self.challenge, data[end : end + 32]))

    def judged(self, granted: bool) -> bytes:
        return b"\x00" if granted else b"\x01"

    def wrapping(self) -> None:
        return None  # nothing is encapsulated after this


@implementer(IMethod)
class Challenge:
    """The method; one object serves all clients."""

    number = 0x80
    name = "challenge"
    credentials = IUsernameHashedPassword

    def begin(self, client: Client) -> ChallengeExchange:
        return ChallengeExchange()


async def main(reactor: Any, listen: str = "tcp:1080:interface=127.0.0.1") -> None:
    portal = Portal(Realm())
    # For this kind of credentials alone, so that passwords as they are (method 2) are not taken.
    portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(bob=b"secret"), IUsernameHashedPassword)
    factory = SOCKSFactory(
        reactor,
        portal=portal,
        methods=[Challenge()],
        observer=lambda event: print(event["user"], event["method"], event["ended"], flush=True),
    )
    port = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


react(main, sys.argv[1:])
