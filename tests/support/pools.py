"""Pools of a server under test."""

from __future__ import annotations

from typing import Any

from socksproxy.values.pools import UpstreamPool

from .upstreams import upstream


def pooled(*ports: int, backup: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """
    The options of a server all of whose connections leave by the pool ``eu``.

    :param ports: of its members, which are called ``m0``, ``m1`` and so on.
    :param backup: the ports of the members ``b0`` and so on.
    """
    members = {f"m{number}": upstream("socks5", port) for number, port in enumerate(ports)}
    others = {f"b{number}": upstream("socks5", port) for number, port in enumerate(backup)}
    ways = {**members, **others, **more.pop("upstreams", {})}
    names = more.pop("members", tuple(members))
    pool = UpstreamPool(members=names, backup=tuple(others), **more)
    return {"upstreams": ways, "pools": {"eu": pool}, "via": "eu"}
