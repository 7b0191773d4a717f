"""The global reactor: see :mod:`socksproxy.runtime.reactor`."""

from __future__ import annotations

import subprocess
import sys

from socksproxy.runtime.reactor import global_reactor


def test_the_one_of_the_process() -> None:
    from twisted.internet import reactor

    assert global_reactor() is reactor


def test_when_it_is_asked_for() -> None:
    """A program can still choose its reactor after the import."""
    program = (
        "import sys\n"
        "from socksproxy.runtime.reactor import global_reactor\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "from twisted.internet import selectreactor\n"
        "selectreactor.install()\n"
        "assert type(global_reactor()) is selectreactor.SelectReactor\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
