"""Tests of L{mailgate.config}."""
