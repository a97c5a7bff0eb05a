"""
Tests for L{mailgate.protocols.sieve}.
"""
