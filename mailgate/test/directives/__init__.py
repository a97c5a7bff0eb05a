"""Tests of L{mailgate.directives}."""
