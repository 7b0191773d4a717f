"""What this machine can reach."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket


def has_route(host: str, port: int = 9) -> bool:
    """Whether the system has a route to the literal address *host*; no packet is sent."""
    try:
        with socket(AF_INET6 if ":" in host else AF_INET, SOCK_DGRAM) as probe:
            probe.connect((host, port))
    except OSError:
        return False
    return True
