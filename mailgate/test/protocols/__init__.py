"""Tests of L{mailgate.protocols}."""
