"""
C{mailgate top}: the live page in a terminal.
"""
