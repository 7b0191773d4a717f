"""
Every message of SOCKS4, SOCKS4a, RFC 1928 and RFC 1929: bytes to values and back.

Nothing here does input or output, knows a clock or imports Twisted.
:mod:`~socksproxy.wire.words` holds the words of the protocols; each of the
other modules parses and builds the messages of one document.
"""
