"""
Whether a server that runs as root has a need for that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..net.endpoints import place_asked_for
from ..twisted_internals import inner_endpoint, tls_options_of

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions

#: What a server is told that runs as root without need.
NEEDLESS_ROOT = (
    "the server runs as root, and nothing that it is told to do needs root: give it a user of its own "
    "(twistd --uid and --gid, User= in a unit of systemd, USER of a container image)"
)

#: Types of ``--auth`` that read what only root may read: /etc/shadow, /etc/krb5.keytab.
_AUTH_OF_ROOT = frozenset({"pam", "unix", "gssapi"})
_FIRST_ORDINARY_PORT = 1024


def is_root_without_need(options: SOCKSOptions) -> bool:
    """
    Whether this process runs as root although *options* ask for nothing that needs root.

    A port below 1024 needs root, and so may passwords of the system, a keytab, and the key of TLS,
    which a reload reads again.

    :param options: parsed.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    if not _AUTH_OF_ROOT.isdisjoint(options.auth_kinds):
        return False
    endpoints = [listener.endpoint for listener in options.plan.listeners]
    if any(tls_options_of(inner_endpoint(endpoint)) is not None for endpoint in endpoints):
        return False
    return not any(0 < port < _FIRST_ORDINARY_PORT for port in _ports(options))


def _ports(options: SOCKSOptions) -> Iterator[int]:
    """The first ports of all ranges on which the server listens, or may come to listen."""
    for listener in options.plan.listeners:
        place = place_asked_for(listener.endpoint)
        if place is not None:
            yield place[1]
    for ports in (options.plan.settings.bind.ports, options.plan.settings.udp.ports):
        if ports is not None:
            yield ports[0]
    yield options.plan.settings.udp.port or 0
