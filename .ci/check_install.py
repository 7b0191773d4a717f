"""
Install this project in every way that people do, and look at what comes of it.

In a clean environment each, away from the checkout: ``twistd socks``, ``twist
socks`` and ``python -m twisted socks`` are ours, a proxy starts, and after an
uninstall Twisted is as it was.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "twisted-socksproxy"

#: An option that Twisted's own ``socks`` does not have, and one that both have.
OURS, BOTH = "--resolver=", "--interface="


def run(*command: object, directory: Path | str = "/") -> str:
    """Run *command* away from the checkout and return what it says."""
    # Nothing of this process's own environment may help.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def expect(condition: bool, text: str) -> None:
    """End with *text* unless *condition*."""
    if not condition:
        raise SystemExit(f"FAILED: {text}")


class Environment:
    """A virtual environment with Twisted and nothing else."""

    def __init__(self, directory: Path) -> None:
        run(sys.executable, "-m", "venv", directory)
        self.programs = directory / "bin"
        self.python = self.programs / "python"
        self.pip("install", "Twisted[tls]")
        self.site = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )

    def pip(self, *arguments: object) -> str:
        return run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments)

    def twisted_files(self) -> dict[str, str]:
        """Every file of Twisted's and its hash; what Python and Twisted cache is left out."""
        return {
            str(path.relative_to(self.site)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.site / "twisted").rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "dropin.cache"
        }

    def front_ends(self) -> Sequence[Sequence[object]]:
        return (
            [self.programs / "twistd"],
            [self.programs / "twist"],
            [self.python, "-m", "twisted"],
        )


def check_ours(environment: Environment, how: str) -> None:
    """``socks`` and ``socksproxy`` are ours by every front end."""
    for front_end in environment.front_ends():
        for name in ("socks", "socksproxy"):
            said = run(*front_end, name, "--help")
            expect(OURS in said and BOTH in said, f"{how}: {front_end} {name} is not ours:\n{said}")


def check_starts(environment: Environment, how: str) -> None:
    """A proxy starts and says where it listens."""
    process = subprocess.Popen(
        [environment.programs / "twistd", "-n", "--pidfile=", "socks", "-p", "0"],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "listening on tcp:127.0.0.1:" in line:
            process.terminate()
    status = process.wait(60)
    expect("listening on" in said and status == -signal.SIGTERM, f"{how}: it does not run:\n{said}")
    expect("Traceback" not in said, f"{how}: {said}")


def check_command(environment: Environment, how: str) -> None:
    """The command is there, says what it is for, and what it lacks without the extra."""
    for command in ([environment.programs / "socksproxy"], [environment.python, "-m", "socksproxy"]):
        said = run(*command, "--help")
        expect("passwd" in said, f"{how}: {command} --help says:\n{said}")
    said = run("sh", "-c", '! "$0" passwd --delete nowhere nobody 2>&1', environment.programs / "socksproxy")
    expect("twisted-socksproxy[htpasswd]" in said, f"{how}: passwd without its packages says:\n{said}")
    said = run("sh", "-c", '! "$0" check /dev/null 2>&1', environment.programs / "socksproxy")
    # Later versions of Python have the TOML parser that the extra brings.
    wanted = "is not a regular file" if sys.version_info >= (3, 11) else "twisted-socksproxy[config]"
    expect(wanted in said, f"{how}: check without its packages says:\n{said}")
    listed = run(
        environment.python,
        "-c",
        "from twisted.cred.strcred import findCheckerFactories as f; print(*[c.authType for c in f()])",
    ).split()
    expect({"htpasswd", "pam"} <= set(listed), f"{how}: the checkers that are found are {listed}")


def check_gone(environment: Environment, how: str, before: dict[str, str]) -> None:
    """After an uninstall Twisted is as it was."""
    environment.pip("uninstall", "-y", NAME)
    after = environment.twisted_files()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    expect(not changed, f"{how}: Twisted's files have changed: {sorted(changed)}")
    said = run(environment.programs / "twistd", "socks", "--help")
    expect(OURS not in said and BOTH in said, f"{how}: Twisted's own socks is not back:\n{said}")


def check(how: str, arguments: Sequence[object], directory: Path) -> None:
    """Install by ``pip install`` *arguments* and look at it."""
    environment = Environment(directory)
    before = environment.twisted_files()
    environment.pip("install", *arguments)
    environment.pip("check")
    during = environment.twisted_files()
    expect(before.items() <= during.items(), f"{how}: an installation replaces files of Twisted's")
    check_ours(environment, how)
    check_starts(environment, how)
    check_command(environment, how)
    typed = run(
        environment.python,
        "-c",
        "import socksproxy, pathlib; print((pathlib.Path(socksproxy.__file__).parent / 'py.typed').exists())",
    )
    expect(typed.strip() == "True", f"{how}: py.typed is missing")
    check_gone(environment, how, before)
    print(f"{how}: good", flush=True)


def check_contents(wheel: Path, sdist: Path) -> None:
    """The wheel holds what is imported, and the source what is needed to build and test it."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    modules = {
        str(path.relative_to(ROOT))
        for place in ("socksproxy", "twisted")
        for path in (ROOT / place).rglob("*.py")
    } | {str(path.relative_to(ROOT)) for path in (ROOT / "socksproxy/admin/page/static").iterdir()}
    expect(modules <= inside, f"the wheel lacks {sorted(modules - inside)}")
    strangers = {
        name for name in inside - modules if ".dist-info/" not in name and name != "socksproxy/py.typed"
    }
    expect(not strangers, f"the wheel holds {sorted(strangers)}")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        str(path.relative_to(ROOT))
        for place in ("tests", "docs/examples", ".ci", "twisted")
        for path in (ROOT / place).rglob("*")
        if path.is_file() and not {"__pycache__", "node_modules", "dropin.cache"} & set(path.parts)
    } | {"setup.py", "pyproject.toml", "LICENSE"}
    expect(wanted <= packed, f"the source distribution lacks {sorted(wanted - packed)}")


def main() -> None:
    """Build, then install the wheel, the source, and the source editable."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run(sys.executable, "-m", "build", "--outdir", scratch / "dist", ROOT)
        (wheel,) = (scratch / "dist").glob("*.whl")
        (sdist,) = (scratch / "dist").glob("*.tar.gz")
        check_contents(wheel, sdist)
        print("wheel and source are built", flush=True)
        check("wheel", [wheel], scratch / "from-wheel")
        check("source", [sdist], scratch / "from-source")
        with tarfile.open(sdist) as archive:
            # The archive is our own, of a moment ago.
            archive.extractall(scratch)
        (checkout,) = scratch.glob("twisted_socksproxy-*")
        check("editable", ["-e", checkout], scratch / "editable")


if __name__ == "__main__":
    main()
