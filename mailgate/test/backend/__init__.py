"""Tests of L{mailgate.backend}."""
