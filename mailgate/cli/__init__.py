"""
The command C{mailgate}: it checks a configuration, imports nginx's, and controls a running gateway.
"""
