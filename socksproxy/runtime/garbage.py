"""
The search for garbage, and what it need not look at.

Modules and classes live as long as the process, and they are most of its objects at the start. A search
for garbage among them takes tens of milliseconds, at the start and again later while clients wait.

A session leaves no cycles behind, so its memory is free at its end. With Python's own threshold every ten
sessions or so would nevertheless start a search among those that go on.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: New objects, fewer those that are gone, after which a search begins; Python's own number is 700.
_THRESHOLD = 20_000


@contextmanager
def importing() -> Iterator[None]:
    """
    Import modules without a search for garbage.

    No later search looks at what exists in the end, and later searches are rare.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_THRESHOLD, *gc.get_threshold()[1:])
        if enabled:
            gc.enable()
