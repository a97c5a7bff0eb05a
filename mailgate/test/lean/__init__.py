"""Tests of L{mailgate.lean}."""
