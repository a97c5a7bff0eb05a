"""Tests of L{mailgate.keeper.admin}."""
