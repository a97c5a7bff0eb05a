"""
The versions that setup.cfg declares are those that .ci/run tests; .ci/lowest.txt has the lowest ones.
"""

from __future__ import annotations

import os
import re
from configparser import ConfigParser

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.documents import MISSING, document

HERE = os.path.dirname(os.path.abspath(__file__))

UNBOUNDED = {"matplotlib", "coverage", "mypy", "mypy-zope", "ruff"}
"""Packages that no gateway needs: only the newest is tested."""


def declared() -> dict[str, str]:
    """The lowest versions of setup.cfg; empty for packages without one."""
    parser = ConfigParser(interpolation=None)
    parser.read_string(document("setup.cfg"))
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    found: dict[str, str] = {}
    for line in "\n".join(texts).splitlines():
        requirement = line.partition(";")[0].strip()
        if not requirement or requirement.startswith(("#", "%(")):
            continue
        match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(?: >= ([\d.]+))?", requirement)
        assert match is not None, f"neither a name nor NAME >= VERSION: {requirement}"
        name, version = match[1], match[2] or ""
        assert found.get(name, version) == version, f"two versions of {name}"
        found[name] = version
    return found


def pinned() -> dict[str, str]:
    """The exact versions of .ci/lowest.txt."""
    lines = [line for line in document(".ci", "lowest.txt").splitlines() if line and not line.startswith("#")]
    return dict(line.split(" == ") for line in lines)


def numbers(version: str) -> list[int]:
    """C{version} without zeros at its end."""
    return [int(number) for number in re.sub(r"(\.0)+$", "", version).split(".")]


class VersionsTests(SynchronousTestCase):
    """setup.cfg and .ci/lowest.txt."""

    skip = MISSING

    def test_bounded(self) -> None:
        """Every package that mailgate needs has a lowest version."""
        self.assertEqual({name for name, version in declared().items() if not version}, UNBOUNDED)

    def test_same(self) -> None:
        """This version is tested."""
        bounded = {name: numbers(version) for name, version in declared().items() if version}
        self.assertEqual({name: numbers(version) for name, version in pinned().items()}, bounded)

    def test_modules(self) -> None:
        """The modules that .ci/run tests with them exist."""
        (listed,) = re.findall(r"^modules=\(([^)]+)\)$", document(".ci", "run"), re.MULTILINE)
        paths = {name: os.path.join(HERE, *name.split("/")) for name in listed.split()}
        missing = [name for name, path in paths.items() if not os.path.isdir(path) and not os.path.exists(f"{path}.py")]
        self.assertEqual(missing, [])

    def test_integration(self) -> None:
        """So do those that it leaves out for gateways with the other transports."""
        (left,) = re.findall(r"^same=\(([^)]+)\)$", document(".ci", "run"), re.MULTILINE)
        folder = os.path.join(HERE, "integration")
        missing = [name for name in left.split() if not os.path.exists(os.path.join(folder, f"test_{name}.py"))]
        self.assertEqual(missing, [])
