"""
``socksproxy ctl``: questions and orders of an operator to a server that runs, over an admin socket.

:mod:`~socksproxy.ctl.subcommands` is the table of all that there is: the parser, the completion of shells and
the page of the documentation come from it. Only the standard library is imported here, and as little of it as
possible, so that an answer is there at once.
"""
