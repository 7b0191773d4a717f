"""Crawl a page with Scrapy: ``ALL_PROXY=socks5://127.0.0.1:1080 python page_scrapy.py URL``."""

import sys
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

from scrapy import Request, Spider
from scrapy.core.downloader.handlers.base import BaseDownloadHandler
from scrapy.crawler import CrawlerProcess
from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.web.client import FileBodyProducer, readBody
from twisted.web.http_headers import Headers as TwistedHeaders

from socksproxy.client import Proxy


class ProxiedHandler(BaseDownloadHandler):
    """Downloads through the proxy of the environment."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        proxy = Proxy.from_environment()
        assert proxy is not None, "ALL_PROXY names no proxy"
        self._proxy = proxy
        self._agent = proxy.agent()

    async def download_request(self, request: Request) -> Response:
        body = FileBodyProducer(BytesIO(request.body)) if request.body else None
        headers = TwistedHeaders({name: list(values) for name, values in request.headers.items()})
        asked = self._agent.request(request.method.encode(), request.url.encode(), headers, body)
        asked.addTimeout(request.meta.get("download_timeout", 180), self._proxy.reactor)
        answer: Any = await maybe_deferred_to_future(asked)
        data = await maybe_deferred_to_future(readBody(answer))
        found = Headers(dict(answer.headers.getAllRawHeaders()))
        kind = responsetypes.from_args(headers=found, url=request.url, body=data)
        return kind(url=request.url, status=answer.code, headers=found, body=data)

    async def close(self) -> None:
        await maybe_deferred_to_future(self._agent.close())


class Page(Spider):
    name = "page"

    async def start(self) -> AsyncIterator[Request]:
        yield Request(sys.argv[1])

    def parse(self, response: Response, **more: Any) -> None:
        print(response.status, len(response.body), "bytes")


HANDLERS = dict.fromkeys(("http", "https"), ProxiedHandler)
crawling = CrawlerProcess({"DOWNLOAD_HANDLERS": HANDLERS, "LOG_LEVEL": "WARNING"})
crawling.crawl(Page)
crawling.start()
