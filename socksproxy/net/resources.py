"""
The endpoints and files that options name, opened.

A process by itself opens them as they are named. A supervisor opens them for its workers, and a worker takes
them from the supervisor (:mod:`~socksproxy.workers.descriptor_passing`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from ..logs.access_log import AccessLog, check_access_log
from ..logs.server_log import ServerLog
from ..logs.streams import own_descriptor
from ..runtime.files import read_regular_file
from ..values.logs import log_place
from .endpoints import (
    NotPassed,
    check_systemd,
    complete_chain,
    ipv4_ports,
    tls_files,
    with_backlog,
    with_mode,
)
from .listening_reactor import ListeningReactor, PortRequest
from .log_servers import verifying
from .port_keeper import PortKeeper


class Resources:
    """
    The endpoints and files of one configuration.

    :param reactor: listens.
    :param before: the resources of the configuration before this one; what stays the same stays open.
    :ivar keeper: the ports that are open.
    :ivar log: the access log, or None.
    :ivar server_log: the server's own log, where it has a place of its own; or None.
    """

    def __init__(self, reactor: Any, before: Resources | None = None) -> None:
        self.reactor = reactor
        self.keeper: PortKeeper = PortKeeper(None if before is None else before.keeper)
        self.log: AccessLog | None = None
        self._log_before = None if before is None else before.log
        self.server_log: ServerLog | None = None
        self._server_log_before = None if before is None else before.server_log

    def successor(self) -> Resources:
        """The resources for the configuration after this one."""
        return Resources(self.reactor, self)

    def reactor_for(self, listener: int) -> Any:
        """The reactor for the endpoint of the *listener* of that number."""
        return ListeningReactor(self.reactor, partial(self.open_port, listener))

    def open_port(self, listener: int, request: PortRequest) -> Any:
        """The port that the endpoint of the *listener* of that number asks for."""
        return self.keeper.open(request, self.listen)

    def listen(self, request: PortRequest) -> Any:
        """Open the port of *request*."""
        return request.open(self.reactor)

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """
        The endpoint of the *listener* of that number.

        :param description: as :func:`~twisted.internet.endpoints.serverFromString` knows it.
        :raises OSError: when a file that it names cannot be read.
        """
        check_systemd(description, self.keeper.used)
        for name in tls_files(description):
            # Twisted would wait for what is no regular file, and for a file system that does not answer.
            read_regular_file(name)
        endpoint: IStreamServerEndpoint = serverFromString(
            self.reactor_for(listener), with_backlog(with_mode(description))
        )
        self.keeper.prepare(endpoint)
        complete_chain(endpoint, description)
        return endpoint

    def separate(self, endpoints: Sequence[IStreamServerEndpoint]) -> None:
        """Have each of *endpoints* on ``::`` leave IPv4 clients to another one on the same port."""
        self.keeper.ipv4_ports = ipv4_ports(endpoints)

    def access_log(self, path: str, format: str) -> AccessLog:
        """
        The access log; the one that is open, where that is the same.

        :raises OSError: when it cannot be opened.
        """
        before, place = self._log_before, log_place(path)
        if before is not None and (before.path, before.format) == (place.text, format):
            self.log = before
        elif before is not None and own_descriptor(before.path) is not None and before.path == path:
            # The daemon has no such stream any more.
            self.log = AccessLog(path, format, descriptor=os.dup(before.fileno()))
        else:
            self.log = AccessLog(path, format, reactor=self.reactor, tls=verifying(place))
        return self.log

    def open_server_log(self, path: str, format: str) -> ServerLog | None:
        """
        The server's own log; the one that is open, where that is the same. None: this process has none.

        :raises OSError: when it cannot be opened.
        """
        before, place = self._server_log_before, log_place(path)
        if before is not None and (before.path, before.format) == (place.text, format):
            self.server_log = before
        else:
            self.server_log = ServerLog(path, format, self.reactor, verifying(place))
        return self.server_log


class CheckedResources(Resources):
    """Opens nothing, and still finds what could not be opened: for ``socksproxy check``."""

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """See :meth:`Resources.endpoint`."""
        try:
            return super().endpoint(listener, description)
        except NotPassed:
            # Only systemd's unit knows what it will pass.
            return super().endpoint(listener, "unix:systemd")

    def access_log(self, path: str, format: str) -> Any:
        """See :meth:`Resources.access_log`; there is none."""
        check_access_log(path)
        verifying(log_place(path))

    def open_server_log(self, path: str, format: str) -> None:
        """See :meth:`Resources.open_server_log`; there is none."""
        self.access_log(path, format)
