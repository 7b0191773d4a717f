"""A SOCKS proxy as a .tac file: ``twistd -ny socks.tac``."""

import os

from twisted.application import strports
from twisted.application.service import Application
from twisted.internet import reactor

from socksproxy import SOCKSFactory, Timeouts, use_monotonic_clock
from socksproxy.limits import Limits, ServerLimits

#: Any Twisted server endpoint.
LISTEN = os.environ.get("SOCKS_LISTEN", "tcp:1080:interface=127.0.0.1")

use_monotonic_clock(reactor)
application = Application("socks")
factory = SOCKSFactory(
    reactor,
    timeouts=Timeouts(handshake=10, connect=30, idle=3600),
    limits=ServerLimits(server=Limits(sessions=1000), client=Limits(sessions=100)),
)
strports.service(LISTEN, factory).setServiceParent(application)
