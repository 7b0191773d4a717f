"""Upstreams of a server under test, and an origin and a resolver that count."""

from __future__ import annotations

from typing import Any

from socksproxy.values.upstreams import Upstream, UpstreamType
from socksproxy.wire.words import Address


def upstream(kind: str, port: int, host: str = "127.0.0.1", **more: Any) -> Upstream:
    """An upstream at *port*."""
    return Upstream(type=UpstreamType(kind), address=Address.of(host, port), **more)


def through(kind: str, port: int, **more: Any) -> dict[str, Any]:
    """The options of a server all of whose connections leave by one upstream, ``one``."""
    return {"upstreams": {"one": upstream(kind, port, **more)}, "via": "one"}
