"""
A conformance and quality check of any SOCKS server.

Strategy: a check plays both ends at once. It opens a target on this machine, asks the server for it, accepts
what the server sends there, and compares both ends with what the documents say. So a check reads from the top
like the conversation that it holds, without callbacks and without threads. Every wait ends.

:mod:`~socksproxy.probe.link` is one connection, :mod:`~socksproxy.probe.subject` the server and how to
ask it, :mod:`~socksproxy.probe.checks` the checks by subject, :mod:`~socksproxy.probe.running` runs them,
and :mod:`~socksproxy.probe.report` prints what they found.
"""
