"""Tests of L{mailgate.system}."""
