"""
SCRAM (RFC 5802, RFC 7677): the messages, what both sides compute, and the secrets of users. Nothing here does I/O.

L{mailgate.frontend.scram} lets clients log in with it, L{mailgate.backend.scram} logs in at backends.
"""
