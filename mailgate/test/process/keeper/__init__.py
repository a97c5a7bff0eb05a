"""
Tests for L{mailgate.process.keeper}.
"""
