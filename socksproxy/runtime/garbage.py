"""
The search for garbage, and what it need not look at.

Modules and classes live as long as the process, and they are most of its objects at the start. A search
for garbage among them takes tens of milliseconds, at the start and again later while clients wait.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import modules without a search for garbage. No later search looks at what exists in the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
