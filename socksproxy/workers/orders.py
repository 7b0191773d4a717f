"""
What a supervisor gives a worker: the orders, and the descriptors that they speak of.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..service.base import ListeningService
from ..service.metrics import ServerMetrics
from ..udp.routing import Router
from .datagrams import Way
from .descriptor_passing import SupervisorResources, file_of
from .process import Orders
from .shared_table import SharedTable

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions


class Inherited:
    """
    The descriptors that a worker is given.

    :param first: the number of the first one.
    :ivar descriptors: by their numbers there, those here.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self.descriptors: dict[int, int] = {}

    def __call__(self, descriptor: int) -> int:
        """The number that *descriptor* has there."""
        place = self._first + len(self.descriptors)
        self.descriptors[place] = descriptor
        return place


def resources_of(options: SOCKSOptions) -> SupervisorResources:
    """What opens the listeners and files of *options*, so that workers can have them."""
    assert isinstance(options.resources, SupervisorResources)
    return options.resources


def orders_for(service: ListeningService, number: int, inherit: Inherited, stack: ExitStack) -> Orders:
    """
    What a worker is to do now.

    :param service: the supervisor.
    :param number: of the worker.
    :param inherit: gives descriptors their numbers there.
    :param stack: closes what is needed only until the worker has it.
    """
    options, log = service.options, service.plan.access_log
    resources = resources_of(options)

    def holding(data: bytes) -> int:
        descriptor = file_of(data)
        stack.callback(os.close, descriptor)
        return inherit(descriptor)

    listeners = []
    for listener in range(len(service.plan.listeners)):
        ports = resources.ports.get(listener, [])
        listeners.append([inherit(port.fileno()) for port, fixed in ports if fixed is None])
    return Orders(
        number=number,
        reactor=type(service.reactor).__module__,
        arguments=options.arguments,
        directory=options.directory,
        listeners=listeners,
        files={name: holding(data) for name, data in resources.files.items()},
        # A worker connects to a socket by itservice.
        log=(inherit(log.fileno()), log.path) if log is not None and log.place.is_file else None,
        counts=None,
        status=-1,
        config=None if options.config is None else holding(options.config),
        node=None if options.node is None else holding(options.node),
        protected=service.administration.places,
    )


def counts_for(table: SharedTable | None, secret: bytes, inherit: Inherited) -> tuple[int, int, str] | None:
    """What a worker needs for the *table* of counts; None: there is none."""
    return None if table is None else (inherit(table.fileno()), table.columns, secret.hex())


def columns_for(metrics: ServerMetrics | None, inherit: Inherited) -> tuple[int, int] | None:
    """What a worker needs for its column of the *metrics*; None: nothing is counted."""
    return None if metrics is None else (inherit(metrics.columns.fileno()), metrics.columns.count)


def way_to(router: Router) -> Way:
    """A way on which the *router* hears of a worker's datagrams."""
    way = Way(lambda message, data: router.received(way, message, data), lambda: router.gone(way))
    return way
