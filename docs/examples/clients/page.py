"""Print a page: ``ALL_PROXY=socks5://127.0.0.1:1080 python page.py URL``."""

import sys
from typing import Any

from twisted.internet.task import react
from twisted.web.client import readBody

from socksproxy.client import Proxy


async def main(reactor: Any, url: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    agent = proxy.agent()
    response = await agent.request(b"GET", url.encode("ascii"))
    print((await readBody(response)).decode("utf-8"))
    await agent.close()


react(main, sys.argv[1:])
