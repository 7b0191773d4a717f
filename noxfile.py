"""The suite on each Python, and the other checks: ``nox``."""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False


#: pytest on two cores.
PYTEST = ("python", "-m", "pytest", "-n", "2", "--dist", "worksteal")
QUICK = ("-m", "(unit or sockets) and not slow", "--hypothesis-profile=quick")


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install("-e", ".[test]")
    session.run(*PYTEST, *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests that take less than a minute: they start no processes."""
    session.install("-e", ".[test]")
    # More processes than cores: for about half of their time the tests wait, for sockets and for clocks.
    session.run(*PYTEST, "-n", "4", "-q", *QUICK, *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Run tests that take minutes: Prometheus, 200 workers that are killed, and a fleet of four nodes."""
    session.install("-e", ".[test]")
    workers = ("tests/workers/test_killed.py", "tests/workers/test_check.py", "tests/metrics/test_columns.py")
    tests = ("tests/interop/test_prometheus.py", *workers, "tests/fleet")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={"SOCKSPROXY_LONG": "1"})
    session.run("python", "benchmarks/fleet.py", "--seconds", "600")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Check what each room imports."""
    session.install("-e", ".[tls,argon2,pam,gssapi,dns,config,metrics]", "import-linter")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-e", ".[tls,docs]")
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html")
    session.run("sphinx-build", "-W", "-b", "man", "docs", "docs/_build/man")


@nox.session
def install(session: nox.Session) -> None:
    """Build, and install in every way that people do."""
    session.install("build")
    session.run("python", ".ci/check_install.py")
