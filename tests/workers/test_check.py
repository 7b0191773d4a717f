"""
``socksproxy check`` of a file whose server is under load: nothing is bound, and no client notices.

It checks a few times; with SOCKSPROXY_LONG in the environment, as by ``nox -s long``, 100 times.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, Program
from ..support.workers import LISTENING, Load, until

RUNS = 100 if os.environ.get("SOCKSPROXY_LONG") else 3

CHECK = "import sys; from socksproxy.cli import main; sys.exit(main(['check', 'socks.toml']))"


def test_check_under_load(
    tmp_path: Path, twistd: Callable[..., Program], record_property: Callable[[str, object], None]
) -> None:
    """No client of the server is refused or reset, and the file is found right each time."""
    file = tmp_path / "socks.toml"
    file.write_text("[listeners]\nport = 0\n[workers]\nworkers = 2\n")
    program = twistd("socks", "--config", "socks.toml")
    port = int(program.wait_for(LISTENING)[1])
    # The file names the port that the server has: a check that binds would take its clients.
    file.write_text(f"[listeners]\nport = {port}\n[workers]\nworkers = 2\n")
    with Origin(echo) as origin:
        loads = [Load(port, origin.port) for _ in range(4)]
        for load in loads:
            load.start()
        try:
            until(lambda: all(load.outcomes for load in loads))
            for _ in range(RUNS):
                command = [sys.executable, "-c", CHECK]
                done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
                assert (done.returncode, done.stdout) == (0, "socks.toml: no mistakes\n"), done.stderr
        finally:
            for load in loads:
                load.stopping = True
            for load in loads:
                load.join()
    outcomes = sum((load.outcomes for load in loads), Counter[str]())
    assert set(outcomes) == {"served"}
    record_property("sessions", outcomes["served"])
