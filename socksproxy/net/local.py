"""
Questions to the kernel about routes and addresses of this machine. No packet is sent.
"""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

from ..errors import SHORTAGES
from .sockets import NewSocket

#: A port that stands for any port where only the route counts.
ANY_PORT = 9


def has_route(host: str, port: int = ANY_PORT) -> bool:
    """Whether the system has a route to the literal address *host*."""
    try:
        address_towards(host, port)
    except OSError:
        return False
    return True


def address_towards(host: str, port: int = ANY_PORT, new_socket: NewSocket | None = None) -> str:
    """
    The address of this machine from which packets to the literal address *host* leave, without a zone.

    :param new_socket: makes the sockets that are to leave; None: they leave as all others.
    :raises OSError: when there is no route.
    """
    with _probe(host, new_socket) as probe:
        probe.connect((host, port or ANY_PORT))
        own: str = probe.getsockname()[0]
    return own.partition("%")[0]


def is_local(host: str) -> bool:
    """
    Whether the literal address *host* is, or may be, an address of this machine: only these can be bound.

    The answer is not remembered, because addresses come and go (DHCP, VRRP). It takes three system calls (10
    µs), and only a destination whose port is a listener's needs it.
    """
    try:
        with _probe(host) as probe:
            probe.bind((host, 0))
    except OSError as problem:
        return problem.errno in SHORTAGES  # out of descriptors: the answer is not known
    return True


def _probe(host: str, new_socket: NewSocket | None = None) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if new_socket is None:
        return socket.socket(family, socket.SOCK_DGRAM)
    return closing(new_socket(family, socket.SOCK_DGRAM))
