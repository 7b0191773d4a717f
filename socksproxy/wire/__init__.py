"""
The messages of the protocols, from bytes to values and back.

The modules do no input or output, have no clock and import no Twisted. :mod:`~socksproxy.wire.words` has the
words of the protocols. Each other module parses and builds the messages of one document.
"""
