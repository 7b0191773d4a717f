"""
Optional packages, and the one message about a package that is missing.

The core depends on Twisted, zope.interface, attrs and idna. Each other package belongs to an extra
of ``setup.py``. A module that uses such a package imports the package at its top. Other modules import that
module inside a function. :data:`MODULES` lists all modules that are imported inside functions.
"""

from __future__ import annotations

#: The modules that need the packages of each extra, and the packages that a function imports itself.
MODULES: dict[str, tuple[str, ...]] = {
    "argon2": ("socksproxy.auth.checkers.argon2",),
    "config": ("socksproxy.config.file",),
    "dns": ("socksproxy.net.dns_resolver",),
    "gssapi": ("socksproxy.auth.checkers.gssapi", "socksproxy.client.gssapi"),
    "http": ("socksproxy.client.http_connect",),
    "htpasswd": ("socksproxy.auth.checkers.htpasswd", "socksproxy.auth.checkers.records"),
    "metrics": ("socksproxy.metrics.exposition",),
    "pam": ("socksproxy.auth.checkers.pam",),
    "shared": ("socksproxy.shared.link", "socksproxy.shared.thread", "socksproxy.sources.stored"),
    "tls": (
        "socksproxy.auth.checkers.tls",
        "socksproxy.sources.signing",
        "OpenSSL",
        "cryptography",
        "twisted.protocols.tls",
        "twisted.internet.ssl",
    ),
}


def missing(extra: str, problem: ImportError) -> str:
    """
    The message to a user whose installation lacks packages of *extra*.

    :param problem: names the module that cannot be imported.
    """
    return f"the extra [{extra}] is not installed ({problem}): pip install 'twisted-socksproxy[{extra}]'"
