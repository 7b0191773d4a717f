"""What the tests of the client share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted

from ..support.scripted_proxy import ScriptedProxy, Step


@pytest.fixture
def scripted() -> Iterator[Callable[..., Any]]:
    """``yield scripted(*steps)``: start a :class:`ScriptedProxy`; it is stopped after the test."""
    proxies: list[ScriptedProxy] = []

    def started(*steps: Step, **options: Any) -> Any:
        proxies.append(ScriptedProxy(*steps, **options))
        return proxies[-1].start()

    yield started
    for proxy in proxies:
        pytest_twisted.blockon(proxy.stop())
