"""What is imported by whom, as far as it shows when a program runs. ``lint-imports`` checks the rest."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import socksproxy.wire

PURE = ["negotiation", *(f"wire.{module.name}" for module in pkgutil.iter_modules(socksproxy.wire.__path__))]


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a new interpreter has after it has run *code*."""
    program = f"import sys\n{code}\nprint('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("module", PURE)
def test_no_twisted(module: str) -> None:
    """The wire format and the negotiation can be used without Twisted."""
    modules = loaded(f"import socksproxy.{module}")
    assert f"socksproxy.{module}" in modules
    assert not {name for name in modules if name.partition(".")[0] == "twisted"}


def test_lazy() -> None:
    """To import the package imports nothing else; a name brings its module along."""
    ours = {name for name in loaded("import socksproxy") if name.startswith("socksproxy")}
    assert ours == {"socksproxy"}
    assert "socksproxy.server.factory" in loaded("from socksproxy import SOCKSFactory")


def test_unknown_name() -> None:
    """What the package does not have is missed in the usual way."""
    with pytest.raises(AttributeError, match="has no attribute 'SOCKSFactroy'"):
        getattr(socksproxy, "SOCKSFactroy")  # noqa: B009 - mypy knows that there is none


def test_listed() -> None:
    """A reader in an interpreter finds the public names."""
    assert set(socksproxy.__all__) <= set(dir(socksproxy))
