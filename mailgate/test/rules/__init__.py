"""Tests of L{mailgate.rules}."""
