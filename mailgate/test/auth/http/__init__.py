"""Tests of L{mailgate.auth.http}."""
