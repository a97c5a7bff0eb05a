"""Tests of L{mailgate.watch}."""
