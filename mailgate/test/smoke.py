"""
The tests that need no other program, and no minutes: all but those of C{mailgate.test.integration}.

For C{python -m twisted.trial -j4 mailgate.test.smoke}.
"""

from __future__ import annotations

from unittest import TestSuite

from twisted.python.modules import getModule
from twisted.trial.runner import TestLoader

__all__ = ["testSuite"]


def testSuite() -> TestSuite:
    """What trial runs in the place of this module."""
    names = sorted(found.name for found in getModule("mailgate.test").walkModules())
    wanted = [name for name in names if name.rpartition(".")[2].startswith(TestLoader.modulePrefix)]
    return TestLoader().loadByNames([name for name in wanted if ".integration." not in name])
