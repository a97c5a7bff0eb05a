"""Tests of L{mailgate.store}."""
