# -*- test-case-name: mailgate.test.integration.test_together -*-
"""
Modules whose tests share gateways and backends run as one: C{trial -j} otherwise deals the tests of a class out to its
processes one by one, and each of these starts the same gateway again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import TestSuite

from twisted.trial.itrial import ITestCase
from twisted.trial.runner import TestLoader
from zope.interface import implementer

__all__ = ["together"]


@implementer(ITestCase)
class _Together:
    """
    The tests of the module C{name}, which are one test for trial when it deals them out. Each is counted, and its
    failure is reported, as itself.
    """

    failureException = AssertionError
    skip = None

    def __init__(self, name: str) -> None:
        module = sys.modules[name]
        loader = TestLoader()
        self._name = name
        self._suite = TestSuite(map(loader.loadClass, loader.findTestClasses(module)))

    def __call__(self, result: Any) -> None:
        self.run(result)

    def run(self, result: Any) -> None:
        """Run the tests."""
        self._suite.run(result)

    def countTestCases(self) -> int:
        """The number of tests."""
        return self._suite.countTestCases()

    def id(self) -> str:
        """By this name a process of trial finds it."""
        return self._name

    def shortDescription(self) -> str:
        """What a reporter may show."""
        return self._name


def together(name: str) -> Callable[[], TestSuite]:
    """
    Return a module's C{testSuite}, with which its tests run one after the other in one process. A class or a method
    can still be run by its name.

    @param name: the module's name.
    """
    return lambda: TestSuite([_Together(name)])  # type: ignore[list-item]
