"""Helper programs for tests."""

from __future__ import annotations

import sys
from pathlib import Path

from socksproxy.values.helpers import HelperSettings

#: Answers as the words of a question say: yes, no, broken, die, hang, garbage, wait (until
#: the test goes on), or anything else.
SCRIPT = r"""#!{python}
import os, sys, time
path, channels = sys.argv[1], sys.argv[2] == "channels"
with open(path, "a") as log:
    log.write("start\n")
for line in iter(sys.stdin.readline, ""):
    with open(path, "a") as log:
        log.write(line)
    words = line.split()
    front = words.pop(0) + " " if channels else ""
    word = words[-1]
    if word == "die":
        os._exit(1)
    if word == "hang":
        if channels:
            continue
        time.sleep(60)
    while word == "wait" and not os.path.exists(path + ".go"):
        time.sleep(0.01)
    if word == "says":
        print("a word to the operator", file=sys.stderr, flush=True)
    answers = dict(no="ERR message=no", broken="BH", garbage="what", named="OK user=alice")
    print(front + answers.get(word, "OK"), flush=True)
"""


class Program:
    """
    A helper program that writes down what it is asked.

    :param directory: for the program and its notes.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "helper"
        self.path.write_text(SCRIPT.replace("{python}", sys.executable))
        self.path.chmod(0o755)
        self.notes = directory / "notes"
        self.notes.touch()

    def settings(self, **changes: object) -> HelperSettings:
        """The settings of a helper with this program."""
        kind = "channels" if changes.get("concurrency") else "one"
        values: dict[str, object] = {"command": (str(self.path), str(self.notes), kind), **changes}
        return HelperSettings(**values)  # type: ignore[arg-type]

    def go_on(self) -> None:
        """Let the processes answer ``wait``."""
        self.notes.with_name(f"{self.notes.name}.go").touch()

    @property
    def lines(self) -> list[str]:
        """What the processes were asked so far, without the starts."""
        return [line for line in self.notes.read_text().splitlines() if line != "start"]

    @property
    def starts(self) -> int:
        """How many processes have started."""
        return self.notes.read_text().splitlines().count("start")
