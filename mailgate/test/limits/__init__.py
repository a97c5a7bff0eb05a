"""Tests of L{mailgate.limits}."""
