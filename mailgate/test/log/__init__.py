"""Tests of L{mailgate.log}."""
