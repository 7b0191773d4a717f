"""What the machine has that not every machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

_INTERFACES = Path("/proc/net/if_inet6")
_LOOPBACK6 = _INTERFACES.exists() and " lo\n" in _INTERFACES.read_text()

needs_ipv6 = pytest.mark.skipif(not _LOOPBACK6, reason="this machine has no IPv6 loopback")
