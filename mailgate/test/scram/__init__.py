"""Tests for L{mailgate.scram}."""
