"""Tests of L{mailgate.protocols.pop3}."""
