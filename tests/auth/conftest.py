"""What the tests of authentication share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kerberos import Realm


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    """A realm of Kerberos, known to this process."""
    with pytest.MonkeyPatch.context() as patch, Realm() as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def bob(realm: Realm) -> dict[str, str]:
    """The environment of a client with bob's ticket."""
    return realm.log_in("bob")
