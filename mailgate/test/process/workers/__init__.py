"""Tests of L{mailgate.process.workers}."""
