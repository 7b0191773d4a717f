"""
A SOCKS proxy whose users have different rights: ``python realm.py [ENDPOINT]``.

Try it with ``curl --proxy socks5h://bob:hunter2@127.0.0.1:1080 https://www.example.com/``.
"""

import sys
from collections import Counter
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater, react
from zope.interface import implementer

from socksproxy import Address, AddressType, Client, Command, SOCKSFactory
from socksproxy.auth import ISOCKSUser, User

PASSWORDS = {"alice": b"opensesame", "bob": b"hunter2", "carol": b"swordfish"}


@implementer(ISOCKSUser)
class OnlyExample:
    """May connect to port 443 of example.com and of names below it, and to nothing by its address."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.named = False

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        if command is not Command.CONNECT or destination.port != 443:
            return False
        if destination.type is AddressType.DOMAIN_NAME:
            self.named = f".{destination.host}".endswith(".example.com")
        # After a name, each of its addresses is asked about; this avatar is for one session and no other.
        return self.named


@implementer(ISOCKSUser)
class AskElsewhere:
    """May go where another service, such as a database, says so; the answer takes time."""

    def __init__(self, name: str, reactor: Any) -> None:
        self.name = name
        self.reactor = reactor

    def permits(self, client: Client, command: Command, destination: Address) -> Deferred[bool]:
        return deferLater(self.reactor, 0.1, lambda: destination.port >= 1024)


@implementer(IRealm)
class Office:
    """Knows who may do what, and counts who is there."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.sessions = Counter[str]()

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        name = avatarId.decode()
        self.sessions[name] += 1
        return ISOCKSUser, self.user(name), lambda: self.left(name)

    def user(self, name: str) -> ISOCKSUser:
        if name == "bob":
            return OnlyExample(name)
        if name == "carol":
            return AskElsewhere(name, self.reactor)
        return User(name)  # may do what the proxy's policy permits

    def left(self, name: str) -> None:
        self.sessions[name] -= 1
        print(name, "has left, sessions:", self.sessions[name], flush=True)


def make_portal(reactor: Any) -> Portal:
    return Portal(Office(reactor), [InMemoryUsernamePasswordDatabaseDontUse(**PASSWORDS)])


async def main(reactor: Any, listen: str = "tcp:1080:interface=127.0.0.1") -> None:
    factory = SOCKSFactory(reactor, portal=make_portal(reactor))
    port = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


if __name__ == "__main__":
    react(main, sys.argv[1:])
