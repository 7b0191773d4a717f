"""The server as Twisted sees it: a factory, and what carries the bytes of its clients."""
