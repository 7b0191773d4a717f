"""What the packages hold, and whose ``twistd socks`` is. Real installations: ``.ci/check_install.py``."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import metadata, version
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from twisted.application.app import ServerOptions
from twisted.application.service import ServiceMaker
from twisted.application.twist._options import TwistOptions
from twisted.plugin import getPlugins
from twisted.plugins.socksproxy_service import Tapname

import socksproxy

from .support.processes import PYTHON_M_TWISTED, TWIST, TWISTD

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "socksproxy"
MODULES = sorted(PACKAGE.rglob("*.py"))

OURS = ServiceMaker("ours", "socksproxy.app", "ours", Tapname("socks"))
TWISTEDS = ServiceMaker("twisted's", "twisted.tap.socks", "Twisted's", "socks")
OTHERS = [ServiceMaker(name, "elsewhere", name, name) for name in ("ftp", "socket", "sock", "web")]


# The name.


@given(st.text())
def test_equals_the_plain_name(other: str) -> None:
    """It is found by what the operator types, and by nothing else."""
    assert (Tapname("socks") == other) is (other == "socks")
    assert Tapname("socks") == "socks"
    assert f"{Tapname('socks')}" == "socks"


@given(st.text())
def test_order(other: str) -> None:
    """The list of plugins stays in order for all others."""
    assert (Tapname("socks") < other) is (other >= "socks")
    assert (other < Tapname("socks")) is (other < "socks")


def test_beside_the_plain_name() -> None:
    """In a dictionary neither takes the other's place."""
    plugins = {"socks": "Twisted's", Tapname("socks"): "ours"}
    assert plugins["socks"] == "Twisted's"
    assert plugins[Tapname("socks")] == "ours"
    assert len(plugins) == 2


@pytest.mark.parametrize("plugins", list(itertools.permutations([OURS, TWISTEDS, *OTHERS[:2]])))
def test_wins_in_any_order(plugins: tuple[ServiceMaker, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which plugin a directory lists first is chance, and must not decide whose proxy runs."""
    by_name = sorted([*plugins, *OTHERS[2:]], key=attrgetter("tapname"))
    assert next(plugin for plugin in by_name if plugin.tapname == "socks") is OURS

    config = ServerOptions()
    monkeypatch.setattr(config, "_getPlugins", lambda interface: [*plugins, *OTHERS[2:]])
    name = next(command[0] for command in config.subCommands if command[0] == "socks")
    list(config.subCommands)
    assert config.loadedPlugins[name] is OURS

    twist = TwistOptions()
    twist["plugins"] = {plugin.tapname: plugin for plugin in plugins}
    name = next(command[0] for command in twist.subCommands if command[0] == "socks")
    assert twist.plugins[name] is OURS


@pytest.mark.parametrize("tapname", ["socks", "socksproxy"])
@pytest.mark.parametrize("command", [TWISTD, TWIST, PYTHON_M_TWISTED], ids=["twistd", "twist", "-m twisted"])
def test_installed_name_is_ours(command: tuple[str, ...], tapname: str, tmp_path: Path) -> None:
    """``twistd socks`` runs this proxy and not Twisted's."""
    help = subprocess.run(
        [*command, tapname, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert "--resolver=" in help.stdout


def test_no_other_plugin_suffers() -> None:
    """Twisted's own is still there, and so is everything else."""
    from twisted.application.service import IServiceMaker

    modules = [getattr(plugin, "module", None) for plugin in getPlugins(IServiceMaker)]
    assert modules.count("socksproxy.app") == 2
    assert "twisted.tap.socks" in modules
    assert "twisted.web.tap" in modules


# The packages.


def listed_packages() -> list[str]:
    """``packages=[...]`` of setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "packages":
            packages: list[str] = ast.literal_eval(node.value)
            return packages
    raise AssertionError("setup.py lists no packages")


def test_every_package_is_listed() -> None:
    """A room that is not listed is missing from the wheel, and only there."""
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(listed_packages()) == there | {"twisted.plugins"}
    assert {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES} == there


def test_every_file_of_the_status_page_is_packed(tmp_path: Path) -> None:
    """The wheel has the page, and the licence of what is in it."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    page = Path("socksproxy", "admin", "page", "static")
    there = {path.name for path in (tmp_path / page).iterdir()}
    assert there == {path.name for path in (ROOT / page).iterdir()}
    assert {"index.html", "uplot.js", "uplot-LICENSE.txt"} <= there


def test_nothing_of_twisteds_is_replaced() -> None:
    """An ``__init__.py`` here would overwrite Twisted's own, and an uninstall would delete it."""
    ours = [path.relative_to(ROOT / "twisted") for path in (ROOT / "twisted").rglob("*.py")]
    assert Path("plugins/socksproxy_service.py") in ours
    assert all(path.parent.name == "plugins" and path.name.startswith("socksproxy_") for path in ours)


def test_plugin_needs_nothing_of_ours() -> None:
    """Every twistd reads it: a fault of ours must not reach them, nor give ``socks`` back to Twisted."""
    tree = ast.parse((ROOT / "twisted" / "plugins" / "socksproxy_service.py").read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported == ["__future__", "twisted.application.service"]
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


def test_version() -> None:
    """What is reported is what is installed."""
    assert version("twisted-socksproxy") == socksproxy.__version__
    assert metadata("twisted-socksproxy")["Requires-Python"] == ">=3.10"


def test_public_names() -> None:
    """Every public name is there, documented, and few enough to know."""
    assert len(socksproxy.__all__) <= 15
    for name in socksproxy.__all__:
        assert getattr(socksproxy, name).__doc__, name


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that the module at *path* imports when it is imported itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = list(parts[: -node.level])
        if node.module:
            yield ".".join([*base, *node.module.split(".")])
            continue
        for alias in node.names:
            module = ROOT.joinpath(*base, alias.name)
            if module.is_dir() or module.with_suffix(".py").exists():
                yield ".".join([*base, alias.name])


def test_rooms_in_one_direction() -> None:
    """Data and imports go one way: no module needs one that needs it."""
    graph = {}
    for path in MODULES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = set(imports(path))
    assert "socksproxy.session.session" in graph["socksproxy.server.factory"]
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("socksproxy.wire.words") < order.index("socksproxy.server.factory")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_global_reactor(path: Path) -> None:
    """To import us installs no reactor, so that a program can choose its own."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
            assert "reactor" not in [alias.name for alias in node.names]


def test_import_installs_no_reactor() -> None:
    """The same, whatever is imported on the way."""
    code = "import sys, socksproxy.app; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
