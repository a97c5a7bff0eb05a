"""
Tests of L{mailgate.test.integration.together}.
"""

from __future__ import annotations

import sys
from types import ModuleType
from unittest import TestResult, TestSuite

from twisted.trial.itrial import ITestCase
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.test.integration.together import together

NAME = "mailgate_together"


class TogetherTests(SynchronousTestCase):
    """L{together}."""

    def setUp(self) -> None:
        class OneTests(SynchronousTestCase):
            def test_good(self) -> None:
                pass

            def test_bad(self) -> None:
                self.fail("as it must")

        module = ModuleType(NAME)
        vars(module).update(OneTests=OneTests, testSuite=together(NAME))
        self.patch(sys, "modules", {**sys.modules, NAME: module})
        self.suite: TestSuite = TestLoader().loadModule(module)

    def test_one(self) -> None:
        """The tests of the module are one to deal out, which a process finds by the name of the module."""
        (test,) = self.suite
        assert not isinstance(test, TestSuite)
        verifyObject(ITestCase, test)
        self.assertEqual(test.id(), NAME)
        self.assertRaises(TypeError, iter, test)
        self.assertEqual(self.suite.countTestCases(), 2)

    def test_each(self) -> None:
        """Each test runs, and its result is its own."""
        result = TestResult()
        self.suite.run(result)
        self.assertEqual(result.testsRun, 2)
        self.assertEqual([test.id().rpartition(".")[2] for test, _ in result.failures], ["test_bad"])
        self.assertEqual(result.errors, [])
