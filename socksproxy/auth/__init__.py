"""
Who a client is: everything goes through a :mod:`twisted.cred` portal.

A method (RFC 1928, section 3) turns a conversation into credentials; the portal
turns credentials into an avatar, an :class:`~socksproxy.auth.users.ISOCKSUser`.
What is known of a client without a word of SOCKS (its TLS certificate, the local
user behind a Unix socket, what its identd says) are credentials too.
"""
