"""
Programs that do not speak SOCKS, and how they reach a proxy all the same.

``run`` answers the system calls of a program and of its children (Linux), ``connect`` joins standard input
and output to one connection, ``forward`` opens local ports that lead through the proxy.
"""
