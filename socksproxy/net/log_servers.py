"""
How a server of logs with TLS is verified.
"""

from __future__ import annotations

from typing import Any

from ..extras import missing
from ..runtime.files import read_regular_file
from ..values.errors import ConfigError
from ..values.logs import LogKind, LogPlace

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def verifying(place: LogPlace) -> Any:
    """
    What verifies the server of *place*; None: the place has no TLS.

    :raises OSError: when the file of certificates cannot be read.
    :raises ConfigError: when it holds none, or what TLS needs is not installed.
    """
    if place.kind is not LogKind.TLS:
        return None
    try:
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
    except ImportError as problem:
        raise ConfigError(missing("tls", problem), place.text) from None
    if place.ca is None:
        return optionsForClientTLS(place.host)
    pieces = read_regular_file(place.ca).data.split(_BEGIN)[1:]
    try:
        trusted = [Certificate.loadPEM(_BEGIN + piece) for piece in pieces]
    except Exception:  # OpenSSL has its own exceptions
        trusted = []
    if not trusted:
        raise ConfigError(f"{place.ca}: no certificates in PEM form", place.text)
    return optionsForClientTLS(place.host, trustRootFromCertificates(trusted))
