"""What sessions leave from, where an address is chosen: docs/outgoing.rst tells it to operators."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted

from socksproxy import Command
from socksproxy.policy import Rule, RulePolicy
from tests.support.proxy import Playing, Proxy, Serve
from tests.support.origin import Origin, echo
from tests.support.socks import ask5, reply5
from tests.policy.test_effects import abroad, meet
from tests.support.udp import Client as Datagrams, Echo, kinds, serving


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin
