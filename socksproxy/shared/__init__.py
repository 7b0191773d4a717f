"""
The store that several nodes share, so that limits hold for all of them.

A :class:`~socksproxy.shared.store.SharedStore` is what the rest of the program knows: it asks and counts in
the reactor's thread. One thread (:mod:`~socksproxy.shared.thread`) talks to the server, by the scripts of
:mod:`~socksproxy.shared.scripts`.
"""
