# -*- test-case-name: mailgate.test.test_documentation -*-
"""
What the documents say is so: directives, defaults, configurations. Their Python: L{mailgate.test.test_snippets}.
"""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

from attrs import evolve, fields, frozen
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate import __version__
from mailgate.auth.http.exchange import route
from mailgate.auth.http.headers import valuesOf
from mailgate.auth.http.presets import PRESETS
from mailgate.auth.http.settings import HTTPSettings
from mailgate.config import load, parse
from mailgate.directives import ConfigurationError, Directive, ListenAddress
from mailgate.log.settings import LogSettings
from mailgate.login import Client, Credentials, LoginRequest, Method, Trouble
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS, SECTIONS
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.sandbox.settings import SandboxSettings
from mailgate.session import Outcome, Phase
from mailgate.test.integration.programs import PROGRAMS
from mailgate.test.support.documents import MISSING, ROOT, codeBlocks, document, documents

KNOWN = {(kind.word, name): known for kind in SECTIONS for name, known in kind.known.items()}
"""Every directive, by the kind of section and its name."""

WITHOUT_FIXED_DEFAULT = {"server_name", "auth_delay", "max_auth_failures", "proxy_login_timeout"}
"""Directives whose default is not the same on every host, or for every server."""


def default(known: Directive) -> Any:
    """Return the default of a directive in the code."""
    assert known.group is not None
    return getattr(fields(known.group), known.field).default


def asDefault(known: Directive, text: str) -> Any:
    """Parse C{text} as the value of a directive, for comparison with its default."""
    value = known.parse(text, "/etc")
    # A default has no text from a file.
    return evolve(value, text="") if isinstance(value, ListenAddress) else value


@frozen
class Entry:
    """One directive in etc/gateway.ini; C{kind} is C{default}, C{example} or C{active}."""

    level: str
    name: str
    value: str
    kind: str


_SECTION = re.compile(r"(?:# )?\[(\w+)(?: \w+)?\]")
_ENTRY = re.compile(r"(# e\.g\. |# |)([a-z0-9_]+) =(?: (.+))?")
_CONTINUED = re.compile(r"(?:# )?    (\S.*)")
_KINDS = {"# e.g. ": "example", "# ": "default", "": "active"}


def entries(text: str) -> Iterator[Entry]:
    """The directives in etc/gateway.ini, those in comments too."""
    level = "mailgate"
    found: list[Entry] = []
    for line in text.splitlines():
        section, entry, continued = (form.fullmatch(line) for form in (_SECTION, _ENTRY, _CONTINUED))
        if section:
            level = section[1]
        elif entry:
            found.append(Entry(level, entry[2], entry[3] or "", _KINDS[entry[1]]))
        elif continued and found:
            found[-1] = evolve(found[-1], value=f"{found[-1].value}\n{continued[1]}".strip())
    return iter(found)


@frozen
class Row:
    """One directive in docs/directives.rst: the texts of its cells."""

    name: str
    sections: str
    values: str
    default: str
    meaning: str


def rows(text: str) -> list[Row]:
    """The rows of the tables in docs/directives.rst, without their heads."""
    found = []
    for row in re.findall(r"^   \* - ``.+\n(?:     .+\n)+", text, re.MULTILINE):
        cells = [" ".join(cell.split()) for cell in re.split(r"^   (?:\* |  )- ", row, flags=re.MULTILINE)[1:]]
        found.append(Row(cells[0].strip("`"), *cells[1:]))
    return found


class GatewayIniTests(SynchronousTestCase):
    """etc/gateway.ini."""

    skip = MISSING

    def setUp(self) -> None:
        self.text = document("etc", "gateway.ini")
        self.entries = list(entries(self.text))

    def test_loads(self) -> None:
        """It is valid without changes, and has a server for each protocol."""
        settings = load(os.path.join(ROOT, "etc", "gateway.ini"))
        self.assertEqual([server.protocol for server in settings.servers], list(PROTOCOLS))
        self.assertIsNone(settings.find(SandboxSettings))

    def test_loopback(self) -> None:
        """Without changes, only this host can connect."""
        settings = load(os.path.join(ROOT, "etc", "gateway.ini"))
        hosts = {address.host for server in settings.servers for address in server.listen}
        self.assertEqual(hosts, {"127.0.0.1"})

    def test_complete(self) -> None:
        """It contains every directive, and no unknown one."""
        named = {(entry.level, entry.name) for entry in self.entries}
        # What [mail] shows for all servers is not shown for each again.
        named |= {(kind, name) for level, name in named if level == "mail" for kind in ("server", "upstream")} & set(
            KNOWN
        )
        self.assertEqual(named, set(KNOWN))

    def test_once(self) -> None:
        """It contains each directive once, except listen, which every server must have."""
        shown = [(entry.level, entry.name) for entry in self.entries if entry.name != "listen"]
        self.assertEqual(sorted(shown, key=str), sorted(set(shown), key=str))

    def test_defaults(self) -> None:
        """Each value that it marks as a default is the default in the code."""
        for entry in self.entries:
            if entry.kind == "default":
                known = KNOWN[entry.level, entry.name]
                self.assertEqual(asDefault(known, entry.value), default(known), entry.name)

    def test_allDefaultsShown(self) -> None:
        """Directives without a default have an example. All others have their default."""
        for entry in self.entries:
            hasDefault = default(KNOWN[entry.level, entry.name]) not in (None, ())
            expected = hasDefault and entry.name not in WITHOUT_FIXED_DEFAULT
            self.assertEqual(entry.kind == "default", expected, entry.name)

    def test_examples(self) -> None:
        """The examples are valid values."""
        for entry in self.entries:
            if entry.kind == "example":
                self.assertTrue(KNOWN[entry.level, entry.name].parse(entry.value, "/etc"), entry.name)

    def test_uncommented(self) -> None:
        """Its meaning does not change if the # is removed from every default."""
        text = re.sub(r"^# (    \S|[a-z0-9_]+ =)", r"\1", self.text.partition("# [upstream")[0], flags=re.MULTILINE)
        self.assertIn("\n    IMAP4rev1\n", text)
        given, plain = parse(text, "gateway.ini"), parse(self.text, "gateway.ini")
        self.assertEqual(given[LogSettings], plain[LogSettings])
        for shown, shipped in zip(given.servers, plain.servers, strict=True):
            self.assertEqual(dict(shown.groups), dict(shipped.groups))
            self.assertGreater(shown.given, shipped.given)


class DirectivesTests(SynchronousTestCase):
    """docs/directives.rst."""

    skip = MISSING

    def setUp(self) -> None:
        self.text = document("docs", "directives.rst")
        self.rows = rows(self.text)

    def known(self, row: Row) -> Directive:
        return KNOWN[(row.sections.rpartition(" ")[2]), row.name]

    def test_complete(self) -> None:
        """Every directive has a row with the sections that may contain it. Unknown directives have no row."""
        told = sorted((row.name, level) for row in self.rows for level in row.sections.split(", "))
        self.assertEqual(told, sorted((name, level) for level, name in KNOWN))

    def test_defaults(self) -> None:
        """The defaults in the table are those in the code; "none" stands for a missing default."""
        for row in self.rows:
            known = self.known(row)
            written = re.findall("``(.+?)``", row.default)
            if written:
                self.assertEqual(asDefault(known, "\n".join(written)), default(known), row.name)
            elif row.name not in WITHOUT_FIXED_DEFAULT:
                self.assertEqual(row.default, "none", row.name)
                self.assertIn(default(known), (None, ()), row.name)

    def test_words(self) -> None:
        """The directive accepts each word that the table lists as a value."""
        for row in self.rows:
            known = self.known(row)
            if row.values.startswith("words of") or row.name in ("starttls", "use", "xclient", "ssl_session_cache"):
                for word in re.findall("``(.+?)``", row.values):
                    sized = word.replace("shared:NAME:SIZE", "shared:SSL:10m").replace("SIZE", "1000")
                    known.parse(sized, "/etc")

    def test_sample(self) -> None:
        """The file at its beginning is complete, except for the certificate and its key."""
        sample = self.text.partition("::\n\n")[2].partition("\n\n* ")[0]
        error = self.assertRaises(ConfigurationError, parse, textwrap.dedent(sample))
        self.assertEqual({problem.option for problem in error.problems}, {"ssl_certificate", "ssl_certificate_key"})


class DocumentsTests(SynchronousTestCase):
    """All the documents."""

    skip = MISSING

    def test_noTabs(self) -> None:
        """They have no tabs and no blanks at line ends, and their lines are short enough for a terminal."""
        for name, text in {**documents(), "etc/gateway.ini": document("etc", "gateway.ini")}.items():
            for number, line in enumerate(text.splitlines(), 1):
                self.assertNotIn("\t", line, f"{name}:{number}")
                self.assertEqual(line, line.rstrip(), f"{name}:{number}")
                # A line of a log cannot be broken, nor a row of a measured table: there are two blanks between columns.
                if "[info]" not in line and "[error]" not in line and not re.search(r"\S {2,}\S|^\.\. \[|^:", line):
                    self.assertLessEqual(len(line), 125, f"{name}:{number}")

    def test_titles(self) -> None:
        """A title's underline is as long as the title."""
        for name, text in documents().items():
            for title, line in re.findall(r"^(\S.*)\n([=~^-])\2{2,}$", text, re.MULTILINE):
                self.assertIn(f"\n{title}\n{line * len(title)}\n", f"\n{text}", name)

    def test_literals(self) -> None:
        """Each ``literal`` ends in the paragraph in which it begins."""
        for name, text in documents().items():
            for paragraph in text.split("\n\n"):
                self.assertEqual(paragraph.count("``") % 2, 0, f"{name}: {paragraph}")

    def test_references(self) -> None:
        """The files that they name exist."""
        for name, text in documents().items():
            for path in re.findall(r"(?<![\w/.])(?:docs|etc|mailgate)/[\w/]+\.\w+", text):
                self.assertTrue(os.path.exists(os.path.join(ROOT, path)), f"{name}: {path}")

    def test_news(self) -> None:
        """The first entry of the news is about this version."""
        self.assertIn(f"====\n\n{__version__}\n---", document("NEWS.rst"))

    def test_phases(self) -> None:
        """Every phase and every outcome that the log can contain is explained."""
        explained = set(re.findall("``(.+?)``", document("docs", "observing.rst").partition("``reached``")[2]))
        named = {phase.value for phase in Phase if phase is not Phase.END} | {outcome.value for outcome in Outcome}
        self.assertLessEqual(named, explained)

    def test_wording(self) -> None:
        """It quotes the replies about a temporary failure that clients get."""
        told = " ".join(document("docs", "troubleshoot.rst").split())
        for protocol in PROTOCOLS.values():
            self.assertIn(protocol.server.wording[Trouble.TEMPORARY].decode(), told)


class AuthHTTPTests(SynchronousTestCase):
    """docs/auth_http.rst."""

    skip = MISSING

    def test_configurations(self) -> None:
        """Each preset has a valid example without warnings, except the usual one about smtp_auth = none."""
        presets: list[str | None] = []
        for ini in codeBlocks(document("docs", "auth_http.rst"), "ini"):
            settings = parse(ini)
            withoutLogin = [server.name for server in settings.servers if server[SMTPSettings].auth == ("none",)]
            places = [(warning.section, warning.option) for warning in settings.warnings]
            self.assertEqual(places, [(f"server {name}", "smtp_auth") for name in withoutLogin])
            presets += {server[HTTPSettings].preset for server in settings.servers}
        self.assertEqual(sorted(map(str, presets)), sorted(PRESETS))

    def test_answers(self) -> None:
        """The answer of each header that decides about a login is accepted, and nothing of it is ignored."""
        table = document("docs", "auth_http.rst").partition("     - Answer\n")[2].partition("\nWhat is wrong with")[0]
        request = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), Client("192.0.2.7", 4711))
        answers = re.findall(r"^   \* - ``(.+)``\n(?:.*\n)+?     - ::\n\n((?: {11}.+\n)+)", table, re.MULTILINE)
        self.assertGreater(len(answers), 12)
        ignored: list[str] = []
        for name, lines in answers:
            headers = Headers()
            for line in ("Auth-Status: OK", *lines.split("\n")):
                if line.strip():
                    headers.addRawHeader(*line.strip().split(": "))
            self.assertTrue(headers.hasHeader(name), name)
            route(request, valuesOf(headers), None, doubt=lambda concern, value: ignored.append(concern))
        self.assertEqual(ignored, [])


class GroupsTests(SynchronousTestCase):
    """docs/groups.rst and docs/health.rst."""

    skip = MISSING

    def test_configurations(self) -> None:
        """Their configurations are valid, given certificates of the tests and the groups that they name."""
        certificate, key = map(os.path.abspath, ensureCertificate(self.mktemp(), ["mail.example.com"]))
        common = (
            f"[mail]\nserver_name = mail.example.com\nssl_certificate = {certificate}\nssl_certificate_key = {key}\n"
        )
        for ini in (
            *codeBlocks(document("docs", "groups.rst"), "ini"),
            *codeBlocks(document("docs", "health.rst"), "ini"),
        ):
            named = set(re.findall(r" = (europe|campus|america)$", ini, re.MULTILINE))
            groups = "".join(f"[upstream {name}]\nserver = {name}.example.com:993\n" for name in sorted(named))
            self.assertEqual(list(parse(common + ini + groups).warnings), [])


class LimitsTests(SynchronousTestCase):
    """docs/limits.rst."""

    skip = MISSING

    def setUp(self) -> None:
        self.text = document("docs", "limits.rst")

    def test_configurations(self) -> None:
        """Its configurations are valid, and none has a warning."""
        server = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = imap.example.com:143\n"
        for ini in (*codeBlocks(self.text, "ini"), *codeBlocks(document("docs", "directives.rst"), "ini")):
            self.assertEqual(parse(ini + server).warnings, ())

    def test_words(self) -> None:
        """The table of what clients hear has the beginnings of the replies, each in the row of its situation."""
        _, _, table = self.text.partition("What the client hears\n---")
        _, _, _, sessions, fast, blocked, *_ = re.split(r"\n   \* - ", table)
        for name, protocol in PROTOCOLS.items():
            wording = protocol.server.wording
            for row, trouble in (
                (sessions, Trouble.SESSIONS),
                (fast, Trouble.TOO_FAST),
                (blocked, Trouble.BLOCKED),
                (blocked, Trouble.HELD),
                (blocked, Trouble.BUSY),
            ):
                code = re.match(r"NO [\[(].*?[\])]|-ERR \[.*?\]|454 4\.7\.0", wording[trouble].decode())
                self.assertTrue(code and f"``{code[0]}``" in row, f"{name}: {wording[trouble]!r}, {row}")
                self.assertNotRegex(wording[trouble], rb"AUTH|535")


class ClusterTests(SynchronousTestCase):
    """docs/cluster.rst."""

    skip = MISSING

    def test_configurations(self) -> None:
        """Its configurations are valid, given the files that they name, and none has a warning."""
        folder = os.path.abspath(self.mktemp())
        certificate, _ = ensureCertificate(folder, ["store.example.com"])
        for name in ("store.secret", "store.password"):
            with open(os.path.join(folder, name), "w") as opened:
                opened.write("f00d" * 16 + "\n")
            os.chmod(os.path.join(folder, name), 0o600)
        server = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = imap.example.com:143\n"
        blocks = codeBlocks(document("docs", "cluster.rst"), "ini")
        self.assertGreater(len(blocks), 2)
        for ini in blocks:
            here = ini.replace("/etc/mailgate/store-ca.pem", certificate).replace("/etc/mailgate/", f"{folder}/")
            self.assertEqual(parse(here + server).warnings, ())


class ReadmeTests(SynchronousTestCase):
    """README.rst."""

    skip = MISSING

    def setUp(self) -> None:
        self.text = document("README.rst")

    def commands(self) -> list[str]:
        """The commands to paste."""
        return re.findall(r"^    (python3 -m venv \.venv && .+)$", self.text, re.MULTILINE)

    def test_commands(self) -> None:
        """There are two of one line each: one runs the demo, the other runs the tests."""
        demo, tests = ([shlex.split(part) for part in command.split(" && ")] for command in self.commands())
        self.assertEqual(demo[-1], [".venv/bin/twistd", "-n", "--pidfile=", "mailgate", "--config", "etc/demo.ini"])
        self.assertEqual(tests[-1][-4:], ["-m", "twisted.trial", "-j4", "mailgate"])
        self.assertIn(".[test]", tests[1])

    def test_twoOfThem(self) -> None:
        """The pattern in .ci/run matches the command that runs the tests, and no other line."""
        (pattern,) = re.findall(r"sed -n 's/(.+)/\\1/p' README\.rst", document(".ci", "run"))
        found = re.findall(pattern.replace(r"\(", "(").replace(r"\)", ")"), self.text, re.MULTILINE)
        self.assertEqual(found, self.commands()[1:])

    def test_packages(self) -> None:
        """.ci/run installs what the integration tests need."""
        (installed,) = re.findall(r"^packages=\((.+)\)$", document(".ci", "run"), re.MULTILINE)
        self.assertEqual(set(installed.split()), {program.package for program in PROGRAMS.values()})

    def test_configuration(self) -> None:
        """The configuration for Dovecot and Postfix is valid and causes no warning, given certificates of the tests."""
        (ini,) = codeBlocks(self.text, "ini")
        certificate, key = ensureCertificate(self.mktemp(), ["mail.example.com"])
        ini = ini.replace("/etc/ssl/certs/mail.example.com.pem", os.path.abspath(certificate))
        ini = ini.replace("/etc/ssl/private/mail.example.com.key", os.path.abspath(key))
        settings = parse(ini)
        self.assertEqual([server.protocol for server in settings.servers], ["imap", "pop3", "smtp"])
        for server in settings.servers:
            self.assertEqual([address.ssl for address in server.listen], [False, True])
        self.assertEqual(list(settings.warnings), [])

    def test_demo(self) -> None:
        """It lists the ports and users of the demo."""
        demo = document("etc", "demo.ini")
        for port in re.findall(r"\b1\d{3}\b", self.text.partition("Quick start")[2].partition("A typical")[0]):
            self.assertIn(f"127.0.0.1:{port}", demo)
        self.assertIn("alice wonderland", demo)
        self.assertIn("bob builder", demo)
