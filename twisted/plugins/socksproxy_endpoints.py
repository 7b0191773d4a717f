"""
Client endpoints from strings: ``socks5:HOST:PORT:proxy=...`` and the like.

Every program that makes an endpoint from a string reads this file. So it imports nothing of ours before
such a string is there.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ProxiedEndpointParser:
    """
    Parses the strings of one prefix.

    :param prefix: what the strings begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """See :func:`socksproxy.client.strings.endpoint_from`."""
        from socksproxy.client.strings import endpoint_from

        return endpoint_from(self.prefix, reactor, *args, **kwargs)


socks = ProxiedEndpointParser("socks")
socks4 = ProxiedEndpointParser("socks4")
socks4a = ProxiedEndpointParser("socks4a")
socks5 = ProxiedEndpointParser("socks5")
http_connect = ProxiedEndpointParser("http-connect")
