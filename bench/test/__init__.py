"""Tests of the parts of the benchmark that need no proxy: C{python -m twisted.trial bench}."""
