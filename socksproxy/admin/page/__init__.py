"""
The status page: what a browser shows of a server that runs.

``docs/status-page.rst`` explains it. The page reads and changes nothing.
"""
