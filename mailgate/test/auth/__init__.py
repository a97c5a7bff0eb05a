"""Tests of L{mailgate.auth}."""
