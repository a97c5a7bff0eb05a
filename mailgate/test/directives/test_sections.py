"""
Tests for L{mailgate.directives.sections}.
"""

from __future__ import annotations

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import SectionKind, directive, number, text


@frozen
class Sample:
    """A settings class."""

    weight: int = directive("weight", number, 1)
    place: str = directive("place", text, "", only="host")


class SectionKindTests(SynchronousTestCase):
    """Tests for L{SectionKind}."""

    general = SectionKind("hosts", False, (Sample,))
    host = SectionKind("host", True, (Sample,), inherits="hosts")

    def test_title(self) -> None:
        """Its title has a placeholder for the name."""
        self.assertEqual((self.general.title, self.host.title), ("hosts", "host NAME"))

    def test_takes(self) -> None:
        """A header without a name is one word; a header with a name has more."""
        self.assertEqual([each for each in ("hosts", "hosts a", "host") if self.general.takes(each)], ["hosts"])
        self.assertEqual(
            [each for each in ("host", "host ", "host a", "host a b", "hosts a") if self.host.takes(each)],
            ["host a", "host a b"],
        )

    def test_known(self) -> None:
        """Its options are those of its settings classes, except those for other sections."""
        self.assertEqual(list(self.general.known), ["weight"])
        self.assertEqual(list(self.host.known), ["weight", "place"])
