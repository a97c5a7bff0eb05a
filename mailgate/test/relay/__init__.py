"""Tests of L{mailgate.relay}."""
