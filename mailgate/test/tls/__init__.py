"""Tests of L{mailgate.tls}."""
