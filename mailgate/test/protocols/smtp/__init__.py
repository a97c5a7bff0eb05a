"""Tests of L{mailgate.protocols.smtp}."""
