"""What ``twistd`` and ``twist`` can start: names only."""

from twisted.application.service import ServiceMaker

from socksproxy.tapname import Tapname

socks = ServiceMaker(
    "socksproxy",
    "socksproxy.service",
    "A SOCKS4, SOCKS4a and SOCKS5 proxy (socksproxy).",
    Tapname("socks"),
)

socksproxy = ServiceMaker(
    "socksproxy",
    "socksproxy.service",
    "A SOCKS4, SOCKS4a and SOCKS5 proxy.",
    "socksproxy",
)
