"""
The rules for imports between packages. C{PACKAGES} has every package of mailgate, and every module outside of packages,
from the bottom up. Type imports and imports in functions count. A package imports only from rows above its own, so that
there is no circle between packages.
"""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.imports import imported, modules, packageOf, trees

GROUND = "directives login scram system log tls sessionids session lean net"
MIDDLE = f"{GROUND} interfaces store limits relay rules upstream backend"
ASSEMBLY = f"{MIDDLE} watch frontend auth protocols registry config processstate service"

PACKAGES = {
    "directives": "",
    "login": "",
    "scram": "directives login",
    "system": "directives",
    "log": "directives login system",
    "tls": "directives login system log",
    "sessionids": "",
    "session": "login log sessionids",
    "lean": "directives log system tls",
    "net": "directives login log",
    "interfaces": "directives login log session",
    "store": "directives login log system tls net",
    "limits": "directives login log system session net interfaces store",
    "relay": "directives login log session tls lean interfaces",
    "rules": "directives login net",
    "upstream": "directives login log tls net limits rules",
    "backend": "directives login scram log tls session lean net interfaces relay rules upstream",
    "watch": MIDDLE,
    "frontend": MIDDLE,
    "auth": MIDDLE,
    "protocols": f"{MIDDLE} frontend",
    "sandbox": "directives login system tls",
    "registry": f"{MIDDLE} watch frontend auth protocols sandbox",
    "config": f"{MIDDLE} watch frontend auth protocols registry",
    "processstate": f"{MIDDLE} watch frontend",
    "service": f"{MIDDLE} watch frontend auth protocols registry config processstate",
    "keeper": ASSEMBLY,
    "process": f"{ASSEMBLY} keeper",
    "nginx": ASSEMBLY,
    "tap": f"{ASSEMBLY} keeper process sandbox",
    "cli": f"{ASSEMBLY} keeper process nginx tap",
    "testing": f"{MIDDLE} frontend",
}
"""The packages that each package may import, besides itself and the release."""

PUBLIC = {"listensockets": "net", "zygote": "process system"}
"""Other names, which applications import or masters of earlier releases start, and what they may import."""


def forbidden(imports: dict[str, frozenset[str]], packages: dict[str, str]) -> list[str]:
    """The imports that C{packages} does not allow, as C{importing -> imported}."""
    return [
        f"{name} -> {other}"
        for name, others in sorted(imports.items())
        for other in sorted(others)
        if packageOf(other) not in (packageOf(name), "mailgate", "_version", *packages[packageOf(name)].split())
    ]


def crossing(imports: dict[str, frozenset[str]], package: str) -> list[str]:
    """The imports between members of C{package}. A member is a module or a package in it."""

    def member(name: str) -> str:
        return ".".join(name.split(".")[:2])

    members = {member(name) for name in imports if name.startswith(f"{package}.")}
    assert len(members) > 2
    return [
        f"{name} -> {other}"
        for name, others in sorted(imports.items())
        for other in sorted(others)
        if member(name) in members and member(other) in members and member(name) != member(other)
    ]


class PackagesTests(SynchronousTestCase):
    """The modules of mailgate, compared with the table."""

    def test_complete(self):
        """Every package has a row, and the table has no other packages."""
        found = {packageOf(name) for name in modules()} - {"mailgate", "_version", *PUBLIC}
        self.assertEqual(sorted(found), sorted(PACKAGES))

    def test_order(self):
        """A row names only packages above it, so that no circle is possible."""
        above: set[str] = set()
        for package, allowed in PACKAGES.items():
            self.assertEqual(set(allowed.split()) - above, set(), package)
            above.add(package)

    def test_allowed(self):
        """Each package imports only what its row names."""
        found = forbidden(modules(), {**PACKAGES, **PUBLIC, "mailgate": "", "_version": ""})
        self.assertEqual(found, [])

    def test_protocols(self):
        """No protocol imports another protocol."""
        self.assertEqual(crossing(modules(), "protocols"), [])

    def test_noTests(self):
        """Only tests import tests."""
        for name, others in modules().items():
            self.assertEqual([other for other in others if packageOf(other) == "test"], [], name)

    def test_noGlobalReactor(self):
        """No module imports the global reactor at module level."""
        for name, tree in trees().items():
            for statement in tree.body:
                if isinstance(statement, ast.ImportFrom) and statement.module == "twisted.internet":
                    self.assertNotIn("reactor", [alias.name for alias in statement.names], name)


class CheckTests(SynchronousTestCase):
    """The check itself, with sources that break the rules."""

    known = frozenset({"login", "session", "protocols", "protocols.pop3"})

    def found(self, source: str) -> set[str]:
        return imported(ast.parse(source), self.known)

    def test_forms(self):
        """Imports of all forms are found, also in functions and for type checkers."""
        for source, expected in (
            ("from mailgate.login import Method", {"login"}),
            ("import mailgate.session", {"session"}),
            ("import mailgate.session as s, os", {"session"}),
            ("from mailgate.protocols import pop3", {"protocols.pop3"}),
            ("from mailgate import login, __version__", {"login", "mailgate"}),
            ("def f():\n    from mailgate.login import Method", {"login"}),
            ("if TYPE_CHECKING:\n    from mailgate.login import X", {"login"}),
            ("try:\n    import mailgate.login\nexcept ImportError:\n    import mailgate.session", {"login", "session"}),
        ):
            self.assertEqual(self.found(source), expected, source)

    def test_others(self):
        """Other packages do not count, even if their names begin alike."""
        self.assertEqual(self.found("import os, mailgate2.login\nfrom twisted.mail import smtp"), set())

    def test_relative(self):
        """A relative import is refused."""
        self.assertRaises(AssertionError, self.found, "from . import login")

    def test_forbidden(self):
        """An import that no row allows is found; one inside a package is allowed."""
        imports = {"low.a": frozenset({"high.b", "low.c"}), "high.b": frozenset({"low.a"}), "low.c": frozenset()}
        self.assertEqual(forbidden(imports, {"low": "", "high": "low"}), ["low.a -> high.b"])

    def test_crossing(self):
        """A protocol that imports another is found; a package of protocols counts as one."""
        imports = {
            "protocols.a": frozenset({"protocols.b.x"}),
            "protocols.b.x": frozenset({"protocols.b.y"}),
            "protocols.b.y": frozenset({"login"}),
            "protocols.c": frozenset(),
        }
        self.assertEqual(crossing(imports, "protocols"), ["protocols.a -> protocols.b.x"])
