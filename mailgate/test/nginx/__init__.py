"""Tests of L{mailgate.nginx}."""
