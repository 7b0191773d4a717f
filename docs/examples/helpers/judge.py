#!/usr/bin/env python3
"""A helper that judges requests: some users may not reach some destinations."""

import sys
from urllib.parse import unquote

BARRED = {("bob", "games.example"), ("bob", "192.0.2.7")}

for line in sys.stdin:
    # The format of the configuration: %SRC %un %METHOD %DST %PORT
    client, user, command, destination, port = map(unquote, line.split())
    answer = 'ERR message="not for you"' if (user, destination) in BARRED else "OK"
    print(answer, flush=True)
