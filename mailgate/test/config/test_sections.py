"""
Tests for L{mailgate.config.sections}, and for sections and settings classes that are registered and nothing else: one
line of the registry each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate import registry
from mailgate.config import knownDirectives, parse, readOne
from mailgate.directives import (
    ConfigurationError,
    GatewaySettings,
    Problem,
    SectionKind,
    SectionSettings,
    directive,
    number,
    seconds,
    text,
    words,
)
from mailgate.directives.needs import Need, given
from mailgate.log.settings import LogSettings
from mailgate.system.pidfile import PIDSettings

GOOD = "[mail]\nproxy_pass = 10.0.0.1:143\n[server imap]\nlisten = 127.0.0.1:143\n"
"""Four valid lines."""


@frozen
class Pool:
    """A settings class that mailgate does not know."""

    weight: int = directive("weight", number, 1)
    patience: float = directive("patience", seconds, 60.0)
    key: str = directive("pool_key", text, "", secret=True)
    modes: tuple[str, ...] = directive("modes", words("fair", "fast"), ("fair",))
    place: str = directive("place", text, "", only="upstream")

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        if not self.weight:
            yield section.problem("weight", "must be more than 0", str(self.weight))
        if section.title == "upstream needy" and not self.place:
            yield section.problem("place", "is missing")

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        if self.weight > 100:
            yield section.problem("weight", "is a lot", str(self.weight))

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        pools = settings.sections(cls)
        if len({pool.place for pool in pools.values()}) < len(pools):
            yield Problem(settings.file, "are at one place", f"upstream {list(pools)[-1]}", "place")


@frozen
class Probes:
    """Another one for the same sections."""

    needs: ClassVar[tuple[Need, ...]] = (given("weight"),)

    every: float = directive("probe_interval", seconds, 5.0)


@frozen
class Eighth:
    """A settings class of the process."""

    colour: str = directive("colour", text, "grey")


class RegisteredCase(SynchronousTestCase):
    """Registers kinds of sections for the tests."""

    def setUp(self) -> None:
        added = (
            SectionKind("upstreams", False, (Pool, Probes)),
            SectionKind("upstream", True, (Pool, Probes), inherits="upstreams"),
        )
        beside = [kind for kind in registry.SECTIONS if kind.word in ("mailgate", "mail", "server", "sandbox")]
        self.patch(registry, "SECTIONS", (*beside, *added))

    def faults(self, added: str) -> list[str]:
        """The messages about C{added}, whose first line is line 5."""
        error = self.assertRaises(ConfigurationError, parse, GOOD + added)
        return str(error).split("\n")

    def warnings(self, added: str) -> list[str]:
        return list(map(str, parse(GOOD + added).warnings))


class NamedSectionTests(RegisteredCase):
    """C{[upstream NAME]}, with defaults in C{[upstreams]}."""

    def test_read(self) -> None:
        """Each is read into its settings classes, which are found by the name of the section."""
        settings = parse(GOOD + "[upstream a]\nweight = 3\n[upstream  b  c]\npatience = 1m\nplace = here\n")
        self.assertEqual(dict(settings.sections(Pool)), {"a": Pool(weight=3), "b c": Pool(patience=60.0, place="here")})
        self.assertEqual(list(settings.sections(Probes)), ["a", "b c"])
        self.assertEqual([section.title for section in settings.named], ["upstream a", "upstream b c"])
        self.assertEqual(dict(parse(GOOD).sections(Pool)), {})

    def test_inherits(self) -> None:
        """A section inherits options from the section of defaults, wherever that is in the file."""
        settings = parse(GOOD + "[upstream a]\nplace = x\n[upstreams]\nweight = 7\n[upstream b]\nweight = 8\n")
        self.assertEqual([pool.weight for pool in settings.sections(Pool).values()], [7, 8])
        self.assertEqual(settings[Pool].weight, 7)
        a, b = settings.named
        self.assertEqual((a.given, a.inherited), ({"place", "weight"}, {"weight"}))
        self.assertEqual(b.inherited, set())

    def test_unknownSection(self) -> None:
        """An unknown header gets the nearest known one; a missing name is reported."""
        self.assertEqual(
            self.faults("[upstraem a]\n[upstream]\n"),
            [
                "gateway.ini:5: [upstraem a]: is an unknown section; did you mean upstream NAME?",
                "gateway.ini:6: [upstream]: needs a name, such as [upstream imap]; did you mean upstreams?",
            ],
        )

    def test_unknownOption(self) -> None:
        """An unknown option gets the nearest known one; an option of another section gets the right section."""
        self.assertEqual(
            self.faults("[upstream a]\nwieght = 1\nuse = epoll\n[upstreams]\nplace = x\n[mailgate]\nweight = 2\n"),
            [
                "gateway.ini:6: [upstream a] wieght: is an unknown option; did you mean weight?",
                "gateway.ini:7: [upstream a] use: belongs in [mailgate]; move it there",
                "gateway.ini:9: [upstreams] place: belongs in [upstream NAME]; move it there",
                "gateway.ini:11: [mailgate] weight: belongs in [upstreams]; move it there",
            ],
        )

    def test_values(self) -> None:
        """An invalid value is reported with its stray characters; a secret value is not shown."""
        self.assertEqual(
            self.faults("[upstream a]\nweight = 3;\npatience = soon\npool_key =\n"),
            [
                'gateway.ini:6: [upstream a] weight = 3;: the ";" at the end is part of the value: remove it',
                "gateway.ini:7: [upstream a] patience = soon: must be a time, such as 30s, 1h30m or 500ms",
                "gateway.ini:8: [upstream a] pool_key = ***: a value is missing",
            ],
        )

    def test_lines(self) -> None:
        """Repeated and indented sections and options are reported as in other sections."""
        found = self.faults("[upstream a]\nplace = x\n  [upstream b]\n[upstream a]\npatience = 1\npatience = 2\n")
        self.assertEqual(
            [line.partition(": ")[0] for line in found], ["gateway.ini:7", "gateway.ini:8", "gateway.ini:10"]
        )
        self.assertIn("[upstream b] is indented and therefore continues the value of place in line 6", found[0])
        self.assertIn("this section appears twice, first in line 5; merge them", found[1])

    def test_problems(self) -> None:
        """
        A mistake that a settings class finds is reported where the option is set, also in the section of defaults.
        """
        self.assertEqual(
            self.faults("[upstream a]\nweight = 0\n"),
            ["gateway.ini:6: [upstream a] weight = 0: must be more than 0"],
        )
        self.assertEqual(
            self.faults("[upstreams]\nweight = 0\n[upstream a]\nplace = a\n[upstream b]\nplace = b\n"),
            ["gateway.ini:6: [upstreams] weight = 0: must be more than 0"],
        )

    def test_spoilt(self) -> None:
        """After a value that could not be parsed, the option is not reported as missing."""
        self.assertEqual(self.faults("[upstream needy]\n"), ["gateway.ini:5: [upstream needy] place: is missing"])
        for line, told in (
            ("place =", "gateway.ini:6: [upstream needy] place = : a value is missing"),
            ("place x", 'gateway.ini:6: has no "=" after place; write place = VALUE'),
        ):
            self.assertEqual(self.faults(f"[upstream needy]\n{line}\n"), [told])

    def test_conflicts(self) -> None:
        """Mistakes that concern several sections are reported."""
        self.assertEqual(
            self.faults("[upstream a]\nplace = x\n[upstream b]\nplace = x\n"),
            ["gateway.ini:8: [upstream b] place: are at one place"],
        )

    def test_warnings(self) -> None:
        """Warnings do not stop the start."""
        self.assertEqual(
            self.warnings("[upstream a]\nweight = 101\nmodes = fast fast\n"),
            [
                'gateway.ini:7: [upstream a] modes = fast fast: duplicate value "fast"',
                "gateway.ini:6: [upstream a] weight = 101: is a lot",
            ],
        )

    def test_needs(self) -> None:
        """An option without effect causes a warning; one in the section of defaults only if no section uses it."""
        self.assertEqual(
            self.warnings("[upstream a]\nprobe_interval = 1\n"),
            ["gateway.ini:6: [upstream a] probe_interval: has no effect without weight"],
        )
        defaults = "[upstreams]\nprobe_interval = 1\n[upstream a]\nplace = a\n"
        self.assertEqual(
            self.warnings(defaults),
            ["gateway.ini:6: [upstreams] probe_interval: has no effect: no upstream that inherits it has weight"],
        )
        self.assertEqual(self.warnings(defaults + "[upstream b]\nweight = 2\n"), [])

    def test_secret(self) -> None:
        """Its secrets are not in any repr."""
        settings = parse(GOOD + "[upstream a]\npool_key = open-sesame\n")
        self.assertEqual(settings.sections(Pool)["a"].key, "open-sesame")
        self.assertNotIn("open-sesame", f"{settings!r} {settings.named!r} {settings.sections(Pool)!r}")

    def test_knownDirectives(self) -> None:
        """Its options are known by its word."""
        self.assertEqual(set(knownDirectives("upstream")) - set(knownDirectives("upstreams")), {"place"})


class ProcessSettingsTests(SynchronousTestCase):
    """Settings classes of C{[mailgate]}."""

    def setUp(self) -> None:
        first, *others = registry.SECTIONS
        self.patch(registry, "SECTIONS", (evolve(first, settings=(*first.settings, Eighth)), *others))

    def test_more(self) -> None:
        """One more class needs one line in the registry, and does not change the others."""
        settings = parse("[mailgate]\ncolour = green\nerror_log = x.log\n" + GOOD)
        self.assertEqual(settings[Eighth], Eighth("green"))
        self.assertEqual([os.path.basename(log.file or "") for log in settings[LogSettings].errorLog], ["x.log"])
        self.assertEqual(parse(GOOD)[Eighth], Eighth())

    def test_wrong(self) -> None:
        """Its options are checked like all others."""
        error = self.assertRaises(ConfigurationError, parse, "[mailgate]\ncolour =\ncolor = red\n" + GOOD)
        self.assertEqual(
            str(error).split("\n"),
            [
                "gateway.ini:2: [mailgate] colour = : a value is missing",
                "gateway.ini:3: [mailgate] color: is an unknown option; did you mean colour?",
            ],
        )


class ReadOneTests(SynchronousTestCase):
    """Tests for L{readOne}."""

    def test_others(self) -> None:
        """The settings of one class are read, whatever else is wrong."""
        broken = "[mailgate]\npid = x.pid\nuse = nonsense\n[server imap]\nlisten = nowhere\n[frob]\n"
        self.assertEqual(readOne(broken, "/etc/gateway.ini", PIDSettings).path, "/etc/x.pid")
        self.assertIsNone(readOne(GOOD, "gateway.ini", PIDSettings).path)
