"""Tests of L{mailgate.net}."""
