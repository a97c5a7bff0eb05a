"""
Tests for L{mailgate.keeper.cluster}.
"""
