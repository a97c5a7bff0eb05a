"""Tests of L{mailgate.process}."""
