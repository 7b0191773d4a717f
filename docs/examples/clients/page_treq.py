"""Print a page with treq: ``ALL_PROXY=socks5://127.0.0.1:1080 python page_treq.py URL``."""

import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from socksproxy.client import Proxy


async def main(reactor: Any, url: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    agent = proxy.agent()
    response = await HTTPClient(agent).get(url)
    print(await response.text())
    await agent.close()


react(main, sys.argv[1:])
