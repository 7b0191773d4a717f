"""
How many bytes a holder may move in a day and in a month, and the file that keeps what has been used.
"""
