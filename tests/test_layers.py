"""What is imported by whom, as far as it shows when a program runs. ``lint-imports`` checks the rest."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import socksproxy.wire
from socksproxy.extras import MODULES

ROOT = Path(__file__).parents[1]
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


def test_check(tmp_path: Path) -> None:
    """To check a file takes neither the server nor a reactor."""
    file = tmp_path / "socks.toml"
    file.write_text('[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n')
    modules = loaded("from socksproxy.cli import main; assert main(['check', sys.argv[1]]) == 0", str(file))
    assert "socksproxy.config.file" in modules
    assert not modules & {
        "socksproxy.server.factory",
        "socksproxy.session.session",
        "socksproxy.relay.engine",
    }
    assert "twisted.internet.reactor" not in modules


def test_unknown_name() -> None:
    """What the package does not have is missed in the usual way."""
    with pytest.raises(AttributeError, match="has no attribute 'SOCKSFactroy'"):
        getattr(socksproxy, "SOCKSFactroy")  # noqa: B009 - mypy knows that there is none


def test_listed() -> None:
    """A reader in an interpreter finds the public names."""
    assert set(socksproxy.__all__) <= set(dir(socksproxy))


def test_extras() -> None:
    """Each extra of setup.py that is not for developers is listed, and no other."""
    setup = ast.parse((ROOT / "setup.py").read_text())
    (extras,) = (
        node.value
        for node in ast.walk(setup)
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    )
    assert isinstance(extras, ast.Dict)
    names = {ast.literal_eval(key) for key in extras.keys if key is not None}
    assert set(MODULES) == names - {"test", "docs", "dev"}


def late_imports(path: Path) -> Iterator[str]:
    """The modules that functions of the module at *path* import."""
    package = path.relative_to(ROOT).parent.parts
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else ()
                module = [*base, *([node.module] if node.module else [])]
                yield from (".".join([*module, alias.name]) for alias in node.names)


#: What is imported late beside the modules that need extras.
LATE = {
    "runtime/reactor.py": ["twisted.internet.reactor"],  # the import chooses a reactor
    # Each command starts with what it needs.
    "cli/check.py": ["twisted.python.usage", "socksproxy.config", "socksproxy.net.resources"],
    "cli/explain.py": ["socksproxy.config", "socksproxy.policy.explain", "socksproxy.routes.pool_words"],
    "app.py": ["socksproxy.workers.supervisor"],  # one process does without the machinery for many
    "client/proxy.py": ["socksproxy.client.agent"],  # all of twisted.web comes with it
    "service/administration.py": ["socksproxy.admin"],  # all of twisted.web comes with it
    "ctl/connection.py": ["ssl"],  # few servers are asked over TLS, and it takes long
    "ctl/fleet.py": ["threading.Thread"],  # few commands ask all nodes, and it takes long
    "ctl/text.py": ["unicodedata.category", "unicodedata.east_asian_width"],  # for other names than ASCII
    "relay/__init__.py": ["socksproxy.relay.engine"],  # there are platforms without epoll
}


@pytest.mark.parametrize("path", sorted((ROOT / "socksproxy").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_inside_functions(path: Path) -> None:
    """A function imports only what an installation may lack."""
    allowed = [name for names in MODULES.values() for name in names]
    allowed += LATE.get(path.relative_to(ROOT / "socksproxy").as_posix(), [])
    for name in late_imports(path):
        assert any(f"{name}.".startswith(f"{one}.") for one in allowed), name


def test_one_class_of_a_name() -> None:
    """
    A reader who meets the name of a class knows which one is meant.

    The client has the same words for the other end, and no reader is in both.
    """
    modules: dict[str, list[str]] = {}
    package = ROOT / "socksproxy"
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] == "client":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                modules.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    several = {name: found for name, found in modules.items() if len(found) > 1}
    assert not several


#: Modules whose tests have another name: the file, or the folder, that has them.
TESTED_ELSEWHERE = {
    # Commands: the processes that they start are tried beside other programs.
    "cli/connect": "socksify/test_connect.py",
    "cli/forward": "socksify/test_forward.py",
    "cli/run": "interop/test_run.py",
    # The parts of one thing that clients meet as a whole.
    "sources/found": "sources/test_files.py",
    "admin/agent": "interop/test_haproxy_agent.py",
    "admin/announcements": "admin/test_nodes.py",
    "admin/control": "admin/test_api.py",
    "admin/errors": "admin/test_api.py",
    "admin/holders": "service/test_holders.py",
    "admin/page/routes": "admin/page/test_files.py",
    "admin/session_routes": "admin/test_api.py",
    "admin/rows": "admin/test_api.py",
    "cli/parser": "cli/test_check.py",
    "ctl/outcome": "ctl/test_command.py",
    "ctl/subcommands": "ctl/test_command.py",
    "ctl/look": "ctl/test_server.py",
    "ctl/change": "ctl/test_server.py",
    "ctl/follow": "ctl/test_server.py",
    "ctl/screen": "ctl/test_watch.py",
    "client/resolve": "client/test_proxy.py",
    "commands/service": "session/test_record.py",
    "limits/account": "limits/test_ledger.py",
    "limits/claims": "limits/test_ledger.py",
    "net/resources": "service/test_reload.py",
    "policy/sets/named_sets": "policy/test_rules.py",
    "relay/pump": "relay/test_engine.py",
    "runtime/shared_file": "metrics/test_columns.py",
    "relay/transports": "relay/test_contract.py",
    "routes/carriers": "routes/test_upstream.py",
    "routes/hops": "routes/test_upstream.py",
    "routes/pool_words": "config/test_pools.py",
    "routes/tries": "routes/test_upstream.py",
    "service/administration": "service/test_control.py",
    "service/base": "service/test_server.py",
    "service/log_files": "process/test_logs.py",
    "service/signals": "service/test_server.py",
    "session/allowance": "limits/test_sessions.py",
    "workers/orders": "workers/test_supervisor.py",
    "shared/asking": "shared/test_store.py",
    "shared/thread": "shared/test_store.py",
    "session/parts": "session/test_session.py",
    "session/routing": "policy/test_effects.py",
    "values/pools": "config/test_pools.py",
    "values/helpers": "config/test_helpers.py",
    "values/metrics": "config/test_metrics.py",
    "values/records": "config/test_records.py",
    "values/upstreams": "config/test_upstreams.py",
    # A scripted server for each check and its fault.
    "probe/": "probe/test_checks.py",
    # It takes a kernel, a name space and a program.
    "socksify/": "interop/test_run.py",
}
#: Shapes alone, and the entry point.
NOTHING_TO_TEST = {
    "__main__",
    "commands/channel",
    "policy/interfaces",
    "relay/interfaces",
    "routes/interfaces",
}


def test_file_of_the_name() -> None:
    """Whoever changes a module finds its tests by its name, or here."""
    tests, package = ROOT / "tests", ROOT / "socksproxy"
    modules = {
        path.relative_to(package).with_suffix("").as_posix()
        for path in package.rglob("*.py")
        if path.stem != "__init__"
    }
    without = {
        each for each in modules if not (tests / each).with_name(f"test_{Path(each).name}.py").exists()
    }
    elsewhere = {each for each in without if each.startswith(tuple(TESTED_ELSEWHERE))}
    assert without - elsewhere == NOTHING_TO_TEST
    for name, file in TESTED_ELSEWHERE.items():
        assert any(each.startswith(name) for each in elsewhere), f"{name} needs no entry any more"
        assert (tests / file).is_file(), file
