# -*- test-case-name: mailgate.test.integration.test_groups mailgate.test.integration.test_retry -*-
"""
Common code for tests that share one gateway: what it logs while one of them runs.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["LoggedTestCase"]


class LoggedTestCase(SynchronousTestCase):
    """
    One gateway for all tests of a process. None of them may make it log a traceback.

    @ivar site: the gateway with its surroundings.
    """

    def watch(self, site: Any) -> None:
        """
        Begin a test.

        @param site: the gateway with its surroundings.
        """
        self.site = site
        self._logged = len(site.gateway.log())
        self.addCleanup(lambda: self.assertNotIn("Traceback", self.log()))

    def log(self) -> str:
        """What the gateway has logged since the test began."""
        log: str = self.site.gateway.log()
        return log[self._logged :]

    def failures(self) -> list[str]:
        """The lines about backends that failed."""
        return [line for line in self.log().splitlines() if "backend failed" in line]
