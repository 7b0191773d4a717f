"""
HTTP clients of Twisted that connect through a proxy.
"""

from __future__ import annotations

from typing import Any, Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ..extras import missing


class Connects(Shape):
    """What an agent needs of a proxy."""

    @property
    def reactor(self) -> Any: ...

    def connect_endpoint(self, host: str | bytes, port: int) -> IStreamClientEndpoint: ...


@implementer(IAgentEndpointFactory)
class ProxiedEndpoints:
    """
    The endpoints of an :class:`~twisted.web.client.Agent`.

    :param proxy: connects.
    :param policy: has the TLS options for a host.
    """

    def __init__(self, proxy: Connects, policy: Any) -> None:
        self._proxy = proxy
        self._policy = policy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        The endpoint for *uri*. The certificate is checked for the host of *uri*, not for the proxy.

        :raises SchemeNotSupported: for other schemes than ``http`` and ``https``.
        :raises ImportError: for ``https`` without the extra ``[tls]``, with the way to install it.
        """
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        endpoint = self._proxy.connect_endpoint(uri.host, uri.port)
        if uri.scheme == b"http":
            return endpoint
        try:
            import twisted.internet.ssl  # noqa: F401
        except ImportError as problem:
            raise ImportError(missing("tls", problem)) from None
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)


class ProxiedAgent(Agent):
    """
    An :class:`~twisted.web.client.Agent` that connects through a proxy.

    A pool tells connections apart by scheme, host and port alone. So each agent has a pool of its own.
    """

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for a next request; fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


def agent_for(proxy: Connects, policy: Any, persistent: bool) -> ProxiedAgent:
    """See :meth:`socksproxy.client.Proxy.agent`."""
    factory = ProxiedEndpoints(proxy, BrowserLikePolicyForHTTPS() if policy is None else policy)
    pool = HTTPConnectionPool(proxy.reactor, persistent)
    agent: ProxiedAgent = ProxiedAgent.usingEndpointFactory(proxy.reactor, factory, pool)
    return agent
