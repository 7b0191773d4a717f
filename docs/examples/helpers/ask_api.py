#!/usr/bin/env python3
"""
A helper that asks an HTTP API whether a password is right, several questions at once.

    ask_api.py URL

The API gets a POST with {"user": ..., "password": ...} in JSON. Status 200 is a yes, 401 and 403 are a no.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from urllib.error import HTTPError, URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

AT_ONCE = 20
SECONDS = 5.0
writing = Lock()


def ask(user: str, password: str) -> str:
    """The answer for Squid's protocol."""
    data = json.dumps({"user": user, "password": password}).encode()
    try:
        with urlopen(Request(sys.argv[1], data, {"Content-Type": "application/json"}), timeout=SECONDS):
            return "OK"
    except HTTPError as problem:
        return "ERR" if problem.code in (401, 403) else f'BH message="status {problem.code}"'
    except (URLError, OSError):
        return 'BH message="the API cannot be reached"'


def answer(line: str) -> None:
    """Answer one line."""
    channel, user, password = line.split()
    told = ask(unquote(user), unquote(password))
    with writing:
        print(channel, told, flush=True)


with ThreadPoolExecutor(AT_ONCE) as threads:
    for each in sys.stdin:
        threads.submit(answer, each)
