"""Tests of L{mailgate.upstream}."""
