"""A SOCKS proxy with passwords, and rights for each user, as a .tac file: ``twistd -ny realm.tac``."""

import os

from twisted.application import strports
from twisted.application.service import Application
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import makeChecker
from twisted.internet import reactor
from zope.interface import implementer

from socksproxy import SOCKSFactory, use_monotonic_clock
from socksproxy.auth import AuthSettings, ISOCKSUser, Remembering

#: Any Twisted server endpoint.
LISTEN = os.environ.get("SOCKS_LISTEN", "tcp:1080:interface=127.0.0.1")
#: The users' passwords; "socksproxy passwd FILE NAME" sets them.
HTPASSWD = os.environ.get("SOCKS_HTPASSWD", "/etc/socksproxy/htpasswd")
#: The ports that users may reach, of whatever host; others may reach none.
PORTS = {"alice": range(1, 65536), "bob": (80, 443)}


@implementer(ISOCKSUser)
class PortsUser:
    def __init__(self, name):
        self.name = name

    def permits(self, client, command, destination):
        return destination.port in PORTS.get(self.name, ())


@implementer(IRealm)
class PortsRealm:
    def requestAvatar(self, avatarId, mind, *interfaces):
        return ISOCKSUser, PortsUser(avatarId.decode()), lambda: None


use_monotonic_clock(reactor)
checker = Remembering(makeChecker(f"htpasswd:{HTPASSWD}"), reactor, seconds=60)
portal = Portal(PortsRealm(), [checker])
application = Application("socks")
factory = SOCKSFactory(reactor, portal=portal, auth=AuthSettings(timeout=5, failures=10))
strports.service(LISTEN, factory).setServiceParent(application)
