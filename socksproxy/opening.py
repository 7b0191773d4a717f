"""
How the things that options name are opened: endpoints and files.

A process by itself opens them as they are named. A supervisor opens them for its
workers, and a worker takes what was opened for it (:mod:`~socksproxy.workers.handover`).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from .log import AccessLog, access_observer


class Opening:
    """
    Opens what is named.

    :param reactor: listens.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def reactor_for(self, listener: int) -> Any:
        """What the endpoint of the *listener* of that number is to listen with."""
        return self.reactor

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """
        The endpoint of the *listener* of that number.

        :param description: as :func:`~twisted.internet.endpoints.serverFromString` knows it.
        """
        endpoint: IStreamServerEndpoint = serverFromString(self.reactor_for(listener), description)
        return endpoint

    def access_log(self, path: str, format: str) -> AccessLog:
        """
        The access log.

        :raises OSError: when it cannot be opened.
        """
        return access_observer(path, format)
