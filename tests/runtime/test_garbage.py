"""The search for garbage: see :mod:`socksproxy.runtime.garbage`."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

PROGRAM = """
import gc
if {disabled}: gc.disable()
before = gc.get_freeze_count()
from socksproxy.runtime.garbage import importing
try:
    with importing():
        assert not gc.isenabled()
        import socksproxy.server.factory
        if {fails}: raise OSError
except OSError:
    pass
assert gc.isenabled() is not {disabled}
assert gc.get_freeze_count() > before + 10_000
"""


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("disabled", [False, True])
def test_importing(disabled: bool, fails: bool) -> None:
    """Meanwhile there is no search, and what was imported is left alone later; the rest is as before."""
    program = PROGRAM.format(disabled=disabled, fails=fails)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert gc.isenabled()
