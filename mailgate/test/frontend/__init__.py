"""Tests of L{mailgate.frontend}."""
