"""Tests of L{mailgate.sandbox}."""
