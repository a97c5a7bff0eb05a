"""Tests of L{mailgate.keeper}."""
