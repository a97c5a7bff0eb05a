"""
Tests for L{mailgate.cli.top}.
"""
