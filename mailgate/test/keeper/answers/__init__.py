"""Tests of L{mailgate.keeper.answers}."""
