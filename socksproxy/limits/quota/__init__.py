"""
Quotas, the bytes that a holder may move in a day and in a month, and the file that keeps their use.
"""
