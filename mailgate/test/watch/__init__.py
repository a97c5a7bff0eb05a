"""
Tests for L{mailgate.watch}.
"""
