"""
Tests for L{mailgate.keeper}.
"""
