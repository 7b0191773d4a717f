"""
External programs that judge logins and requests: Squid's helper protocol over pipes.

:mod:`~socksproxy.helpers.lines` has the protocol, :mod:`~socksproxy.helpers.process` one program, and
:mod:`~socksproxy.helpers.helper` the programs of one helper.
"""
