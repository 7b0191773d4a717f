"""
A file of a million names, and one of a million networks, changes while the server runs: what do
clients notice?

``python benchmarks/attacks/large_sets.py [ENTRIES]`` measures echoes over sessions that go on,
before, while and after the files are read again. Beside it a control process does what an event
loop does, so that stalls of the machine can be told from those of the server. The program also
reads the files in a process of its own, and prints how much processor time the thread of an event
loop spends in one step meanwhile, and for how long at the most it waits for the interpreter's lock.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from victims import connected, echo_server, received, request_of, serving

SECONDS = 5.0
INTERVAL = 0.002

_CONTROL = f"""
import sys, time
most, until = 0.0, time.monotonic() + float(sys.argv[1])
while (now := time.monotonic()) < until:
    time.sleep({INTERVAL})
    most = max(most, time.monotonic() - now)
print(most)
"""

_STEPS = """
import os, sys, threading, time
from socksproxy.policy.sets import NamesFile, NetworksFile
kind = {"names": NamesFile, "networks": NetworksFile}[sys.argv[1]]
file = kind(sys.argv[2])
if sys.argv[3] == "again":
    file.load()
    os.utime(sys.argv[2])
reading = threading.Thread(target=file.load)
most_step = most_wait = 0.0
reading.start()
began = time.monotonic()
while reading.is_alive():
    step, now = time.thread_time(), time.monotonic()
    time.sleep(0.001)
    most_step = max(most_step, time.thread_time() - step)
    most_wait = max(most_wait, time.monotonic() - now - 0.001)
print(f"{1000 * most_step:.1f} {1000 * most_wait:.1f} {time.monotonic() - began:.1f} {len(file)}")
"""


def make_files(directory: Path, entries: int) -> None:
    """Names and networks, in no order."""
    number = random.Random(1)
    names = directory / "names.txt"
    names.write_text("".join(f"a{number.getrandbits(40):x}.b{at}.example\n" for at in range(entries)))
    networks = directory / "networks.txt"
    with networks.open("w") as file:
        for at in range(entries):
            bits = number.getrandbits(30)
            if at % 4:
                file.write(f"{bits >> 22}.{bits >> 14 & 255}.{bits >> 6 & 255}.{bits & 63 << 2}/30\n")
            else:
                file.write(f"2001:db8:{bits >> 16:x}:{bits & 0xFFFF:x}::/64\n")


def echoes(label: str, port: int, destination: int, seconds: float) -> None:
    """Print how long echoes take, and how long the control process stalls."""
    control = subprocess.Popen(
        [sys.executable, "-c", _CONTROL, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    times: list[float] = []
    until = time.monotonic() + seconds

    def client(source: str) -> None:
        with connected(port, source) as sock:
            sock.sendall(request_of("127.0.0.1", destination))
            received(sock, 12)
            while time.monotonic() < until:
                began = time.monotonic()
                sock.sendall(b"x")
                received(sock, 1)
                times.append(time.monotonic() - began)
                time.sleep(INTERVAL)

    threads = [threading.Thread(target=client, args=(f"127.0.0.{2 + each}",)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stalls = float(control.communicate()[0]) - INTERVAL
    times.sort()
    print(
        f"{label:12} {len(times):6} echoes, p99 {1000 * times[len(times) * 99 // 100]:7.1f} ms, "
        f"most {1000 * times[-1]:7.1f} ms; control process stalls {1000 * stalls:6.1f} ms at the most",
        flush=True,
    )


def main(entries: int) -> None:
    """Measure."""
    destination = echo_server()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_files(directory, entries)
        for kind in ("names", "networks"):
            for when in ("first", "again"):
                printed = subprocess.run(
                    [sys.executable, "-c", _STEPS, kind, f"{directory}/{kind}.txt", when],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                step, wait, seconds, length = printed.stdout.split()
                print(
                    f"{kind}, {when}: {length} entries in {seconds} s; the event loop's thread spends "
                    f"{step} ms of processor time in a step, and waits {wait} ms, at the most",
                    flush=True,
                )
        config = directory / "socks.toml"
        config.write_text(
            f'[sets.a]\nnames-file = "{directory}/names.txt"\nnetworks-file = "{directory}/networks.txt"\n'
            '[[rule]]\nname = "no"\nallow = false\nnames = ["@a"]\n'
            '[[rule]]\nname = "neither"\nallow = false\nnetworks = ["a"]\n'
            '[[rule]]\nname = "all"\nallow = true\nnetworks = ["loopback"]\n'
        )
        with serving([f"--config={config}"]) as server:
            echoes("before", server.port, destination, SECONDS)
            for file in ("names.txt", "networks.txt"):
                content = (directory / file).read_bytes()
                (directory / "new").write_bytes(content + b"# changed\n")
                os.replace(directory / "new", directory / file)
            echoes("during", server.port, destination, 6 * SECONDS)
            echoes("after", server.port, destination, SECONDS)
            print(f"end after SIGTERM: {server.end():.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
