"""
Log the lines of a server, for ever: ``twistd -ny lines.tac``.

``ENDPOINT`` says which server, and through which proxies.
"""

import os

from twisted.application.internet import ClientService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from twisted.python import log


class Lines(LineReceiver):
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        log.msg(f"received {line.decode('utf-8')}")


ENDPOINT = r"socks5:irc.example.org:6667:proxy=tcp\:127.0.0.1\:1080"

application = Application("lines")
endpoint = clientFromString(reactor, os.environ.get("ENDPOINT", ENDPOINT))
ClientService(endpoint, Factory.forProtocol(Lines)).setServiceParent(application)
