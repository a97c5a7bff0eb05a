"""Tests of L{mailgate.cli}."""
