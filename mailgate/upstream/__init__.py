"""
Groups of backends: which of them serves the next session.
"""
