"""The tests: C{trial mailgate}."""
