"""What ``twistd socks`` makes of its options: see :mod:`socksproxy.app`."""

from __future__ import annotations

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import makeService
from socksproxy.net.resources import Resources
from socksproxy.service.server import SOCKSService
from socksproxy.workers.descriptor_passing import SupervisorResources
from socksproxy.workers.supervisor import SupervisorService
from tests.support.service import parsed


@pytest.mark.parametrize(
    ("workers", "service", "resources"),
    [("1", SOCKSService, Resources), ("2", SupervisorService, SupervisorResources)],
)
def test_one_process_or_more(workers: str, service: type, resources: type) -> None:
    """One process has no machinery for many."""
    options = parsed("-p", "0", "--workers", workers, reactor=MemoryReactorClock())
    assert type(options.resources) is resources
    made = makeService(options)
    assert type(made) is service
    assert made.options is options
