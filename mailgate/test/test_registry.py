"""
Tests of everything that L{mailgate.registry} lists, and of everything that may contain a secret. A new protocol,
authenticator or settings class needs no tests like these.
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.reflect import namedModule
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

import mailgate
from mailgate.auth.passwdfile.passwords import parsePassword
from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.settings import ProxySettings
from mailgate.config import authenticatorKind, knownDirectives, parse
from mailgate.config.inifile import IniFile
from mailgate.config.sections import Section
from mailgate.directives import Directive, ListenAddress, directives
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.protocol import Command
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.registry import AUTHENTICATORS, PROTOCOLS, SECTIONS, SERVER, SERVER_SETTINGS
from mailgate.sandbox.settings import SandboxSettings

GROUPS = tuple(dict.fromkeys(group for kind in SECTIONS for group in kind.settings))
GATEWAY_INI = os.path.join(os.path.dirname(os.path.dirname(mailgate.__file__)), "etc", "gateway.ini")
PLANTED = "open-sesame"

CONFIGURATION = f"""
[sandbox]
users = joe {PLANTED}
[mail]
server_name = mx.test
[server http]
listen = 127.0.0.1:143
auth_http = http://127.0.0.1:9000/auth?key={PLANTED}
auth_http_header = X-Key {PLANTED}
[server file]
listen = 127.0.0.1:110
auth_file = accounts
proxy_pass = 10.0.0.1:110
[server passthrough]
listen = 127.0.0.1:25
proxy_pass = 10.0.0.1:25
"""
"""A server for each kind of authenticator, with a secret wherever one is possible."""


def allDirectives() -> list[Directive]:
    """All directives."""
    return [declared for group in GROUPS for declared in directives(group)]


def default(declared: Directive) -> Any:
    """The default of C{declared}."""
    assert declared.group is not None
    return getattr(declared.group(), declared.field)


def attrsClasses() -> Iterator[type]:
    """All attrs classes in mailgate, except those of the tests."""
    for module in pkgutil.walk_packages(mailgate.__path__, "mailgate."):
        if not module.name.startswith("mailgate.test"):
            for value in vars(namedModule(module.name)).values():
                if isinstance(value, type) and attrs.has(value) and value.__module__ == module.name:
                    yield value


class ProtocolTests(SynchronousTestCase):
    """Rules for all protocols."""

    def test_names(self):
        """A protocol is registered by its own name, which a [server] can use."""
        for name, record in PROTOCOLS.items():
            self.assertEqual(record.name, name)
            self.assertRegex(name, r"\A[a-z0-9]+\Z")

    def test_ports(self):
        """A port belongs to one protocol."""
        ports = [port for record in PROTOCOLS.values() for port in record.ports]
        self.assertEqual(len(ports), len(set(ports)))

    def test_implicitPorts(self):
        """The ports for TLS from the first byte are among its ports, and are the default for backends."""
        for record in PROTOCOLS.values():
            self.assertLess(set(record.implicitPorts), set(record.ports))
        for name, ports in (("imap", (143, 993)), ("pop3", (110, 995)), ("smtp", (25, 465))):
            self.assertEqual(PROTOCOLS[name].backendPorts, ports)
        self.assertEqual(attrs.evolve(PROTOCOLS["smtp"], ports=(4190,), implicitPorts=()).backendPorts, (4190, 0))

    def test_otherNames(self):
        """Services and TLS use the name of the protocol, as nginx does, unless it says otherwise."""
        for name in ("imap", "pop3", "smtp"):
            record = PROTOCOLS[name]
            self.assertEqual((record.authName, record.alpn), (name, name))
            other = attrs.evolve(record, authName="mine", alpn="managesieve")
            self.assertEqual((other.name, other.authName, other.alpn), (name, "mine", "managesieve"))

    def test_halves(self):
        """Both halves inherit from the common ones."""
        for record in PROTOCOLS.values():
            self.assertTrue(issubclass(record.server, ProxyServer), record.name)
            self.assertTrue(issubclass(record.client, ProxyClient), record.name)

    def test_wholeServer(self):
        """A protocol implements everything that the common half requires."""
        for record in PROTOCOLS.values():
            for name in ("greet", "commandReceived", "invalid", "refuse", "reply", "capabilities"):
                self.assertIsNot(getattr(record.server, name), getattr(ProxyServer, name), f"{record.name}: {name}")

    def test_wholeClient(self):
        """So does the half for backends."""
        for record in PROTOCOLS.values():
            for name in ("greeted", "requestTLS", "authenticate", "probed", "farewell"):
                self.assertIsNot(getattr(record.client, name), getattr(ProxyClient, name), f"{record.name}: {name}")

    def test_wording(self):
        """
        Every trouble has a different text, one line of ASCII without the line end. Limits share one: it says no more
        than to come back later.
        """
        limits = {trouble for trouble in Trouble if Denial(trouble).isLimit}
        for record in PROTOCOLS.values():
            self.assertEqual(set(record.server.wording), set(Trouble), record.name)
            for words in record.server.wording.values():
                self.assertRegex(words, rb"\A[ -~]+\Z")
            texts = [words for trouble, words in record.server.wording.items() if trouble not in limits]
            shared = {record.server.wording[trouble] for trouble in limits}
            self.assertEqual(len(shared.union(texts)), len(texts) + len(shared), record.name)

    def test_commands(self):
        """A dialogue is a table: commands in capitals, with their functions."""
        for record in PROTOCOLS.values():
            tables = [value for name, value in vars(record.server).items() if name.startswith("commands")]
            self.assertIn(record.server.commands, tables)
            for word, command in (item for table in tables for item in table.items()):
                self.assertRegex(word, rb"\A[A-Z]+\Z")
                self.assertIsInstance(command, Command)
                self.assertTrue(callable(command.act), word)

    def test_loginNeedsTLS(self):
        """If TLS is required, no command that begins a login is accepted without it."""
        begins = {b"LOGIN", b"AUTHENTICATE", b"AUTH", b"USER", b"PASS", b"APOP", b"MAIL", b"RCPT"}
        others = {b"HELO", b"HELP", b"RSET", b"CAPABILITY", b"CAPA", b"ID"}
        allowed = {b"EHLO", b"NOOP", b"STARTTLS", b"STLS", b"QUIT", b"LOGOUT"}
        for record in PROTOCOLS.values():
            for word, command in record.server.commands.items():
                if word in begins or record.name == "smtp":
                    self.assertEqual(command.inClear, word in allowed | others, f"{record.name}: {word!r}")
                else:
                    self.assertTrue(command.inClear, f"{record.name}: {word!r}")

    def test_methods(self):
        """By default a protocol offers passwords, which every kind of authenticator supports."""
        for name, record in PROTOCOLS.items():
            server = parse(f"[server x]\nprotocol = {name}\nlisten = 127.0.0.1:1\nproxy_pass = 10.0.0.1:1").servers[0]
            self.assertEqual(record.methods(server), {Method.PLAIN})

    def test_everyMethodCanBeOffered(self):
        """Each login method is offered by a protocol."""
        offered = set()
        for record in PROTOCOLS.values():
            (auth,) = [known for known in directives(record.settings) if known.field == "auth"]
            for method in Method:
                try:
                    offered |= record.settings(auth=auth.parse(method.value, "")).methods
                except ValueError:
                    continue
        self.assertEqual(offered, set(Method))


class SettingsTests(SynchronousTestCase):
    """Rules for all settings classes."""

    def test_frozen(self):
        """Settings are frozen attrs classes, which need no arguments."""
        for group in GROUPS:
            self.assertTrue(attrs.has(group), group)
            with self.assertRaises(attrs.exceptions.FrozenInstanceError):
                setattr(group(), attrs.fields(group)[0].name, None)

    def test_onlyDirectives(self):
        """All their attributes are directives."""
        for group in GROUPS:
            others = ["entries"] if getattr(group, "isOpen", False) else []
            self.assertEqual(
                [known.field for known in directives(group)] + others,
                [attribute.name for attribute in attrs.fields(group)],
            )

    def test_names(self):
        """The names of directives have nginx's form."""
        for known in allDirectives():
            self.assertRegex(known.name, r"\A[a-z][a-z0-9_]*\Z")

    def test_unique(self):
        """In one section a name has one meaning."""
        for kind in SECTIONS:
            declared = [each for group in kind.settings for each in directives(group)]
            names = [each.name for each in declared if each.only in ("", kind.word)]
            self.assertEqual(len(names), len(set(names)), kind.word)

    def test_registeredOnce(self):
        """No settings class is registered twice for a section, nor for two sections without a name."""
        for kind in SECTIONS:
            self.assertEqual(len(kind.settings), len(set(kind.settings)), kind.word)
        single = [group for kind in SECTIONS if not kind.named for group in kind.settings]
        self.assertEqual(len(single), len(set(single)))

    def test_inherited(self):
        """
        The section of defaults of a section exists and has no name. The section accepts all options of the defaults,
        except those of the whole gateway.
        """
        kinds = {kind.word: kind for kind in SECTIONS}
        self.assertEqual(len(kinds), len(SECTIONS))
        for kind in SECTIONS:
            if kind.inherits is not None:
                self.assertFalse(kinds[kind.inherits].named)
                inherited = {name for name, known in kinds[kind.inherits].known.items() if not known.only}
                self.assertLessEqual(inherited, set(kind.known))

    def test_restart(self):
        """Options that need a restart are in sections without a name from which no section inherits."""
        for kind in SECTIONS:
            if kind.named or kind.word in {other.inherits for other in SECTIONS}:
                self.assertEqual([name for name, known in kind.known.items() if not known.reloadable], [])

    def test_everyServerDirectiveIsInherited(self):
        """
        [mail] accepts all options of [server], except those that are specific to one server. A server accepts all of
        [mail], except those that are one for the gateway.
        """
        own = set(knownDirectives("server")) - set(knownDirectives("mail"))
        self.assertEqual(own, {"listen", "protocol"})
        rules = {f"limit_login_{each}" for each in ("pair", "address", "network", "user", "delay")}
        common = {*rules, "limit_prefix", "limit_memory", "state_file", "limit_log_level"}
        self.assertEqual(set(knownDirectives("mail")) - set(knownDirectives("server")), common)

    def test_refusals(self):
        """No parser accepts an empty value, and all raise only ValueError with a reason."""
        for known in allDirectives():
            for value in ("", "\n", "\0", "\n\0\n", "= % $x", "a\nb", "-1", "é", "[", "x" * 100000):
                try:
                    known.parse(value, "/etc/mailgate")
                except ValueError as error:
                    self.assertNotEqual(str(error), "", known.name)
                    self.assertNotIn("\n", str(error), known.name)
                else:
                    self.assertNotEqual(value.strip(), "", known.name)


class DefaultTests(SynchronousTestCase):
    """etc/gateway.ini, which documents every directive: C{# name = value} is a default."""

    def setUp(self):
        if not os.path.exists(GATEWAY_INI):
            raise SkipTest("etc/gateway.ini is not installed")
        with open(GATEWAY_INI, encoding="utf-8") as opened:
            self.documented = opened.read()

    def sections(self):
        """The documented options by section, as written, whether active or not."""
        found = {}
        for line in self.documented.split("\n"):
            header = re.fullmatch(r"(?:# )?\[(\w+).*\]", line)
            option = re.fullmatch(r"(# e\.g\. |# |)(\w+) =(.*)", line)
            if header:
                section = found.setdefault(header[1], {})
            elif option:
                section[option[2]] = [option[1], option[3].strip()]
                latest = section[option[2]]
            elif line.startswith(("#     ", "    ")):
                latest[1] += "\n" + line.strip("# ")
        return found

    def test_defaults(self):
        """A documented default is the default."""
        sections = self.sections()
        for level in (kind.word for kind in SECTIONS):
            for name, known in knownDirectives(level).items():
                mark, written = sections[level].get(name, ("", ""))
                if mark == "# ":
                    self.assertEqual(known.parse(written, "/"), self.comparable(known, written), name)

    def comparable(self, known, written):
        value = default(known)
        return attrs.evolve(value, text=written) if isinstance(value, ListenAddress) else value

    def test_documented(self):
        """Every directive is documented, with its default if it has one."""
        sections = self.sections()
        nothing = (None, (), "", default(knownDirectives("mail")["server_name"]))
        for level in ("mailgate", "mail", "sandbox"):
            for name, known in knownDirectives(level).items():
                self.assertIn(name, sections[level])
                if sections[level][name][0] == "# e.g. ":
                    self.assertIn(default(known), nothing, name)

    def test_examples(self):
        """The examples are valid."""
        for name, (mark, written) in self.sections()["mail"].items():
            if mark == "# e.g. ":
                knownDirectives("mail")[name].parse(written, "/")


class AuthenticatorTests(SynchronousTestCase):
    """Rules for all kinds of authenticator."""

    def setUp(self):
        folder = self.mktemp()
        os.mkdir(folder)
        with open(os.path.join(folder, "accounts"), "w", encoding="ascii") as accounts:
            accounts.write(f"joe:{{PLAIN}}{PLANTED}\n")
        self.settings = parse(CONFIGURATION, os.path.join(folder, "gateway.ini"))

    def build(self):
        """Each server with its authenticator."""
        for server in self.settings.servers:
            kind = authenticatorKind(server)
            reactor = MemoryReactorClock()
            yield kind, kind.build(server, server[ProxySettings].backend, reactor, Journal())

    def test_all(self):
        """There is a server above for each kind."""
        self.assertEqual({kind for kind, _ in self.build()}, set(AUTHENTICATORS))

    def test_interface(self):
        """An authenticator can be queried."""
        for _, authenticator in self.build():
            self.assertTrue(verifyObject(IAuthenticator, authenticator))

    def test_directives(self):
        """A directive of its own settings class selects a kind; [mail] and [server] accept it."""
        for kind in AUTHENTICATORS:
            self.assertIn(kind.directive, [known.name for known in directives(kind.settings)])
            self.assertIn(kind.directive, knownDirectives("mail"))

    def test_distinct(self):
        """No two kinds have the same name or the same directive."""
        self.assertEqual(len({kind.name for kind in AUTHENTICATORS}), len(AUTHENTICATORS))
        self.assertEqual(len({kind.directive for kind in AUTHENTICATORS}), len(AUTHENTICATORS))

    def test_methods(self):
        """Every kind supports passwords."""
        for kind in AUTHENTICATORS:
            self.assertIn(Method.PLAIN, kind.methods)

    def test_cancelled(self):
        """A query can be cancelled at any time, without an unhandled error."""
        request = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"wrong"), Client("192.0.2.1"))
        for _, authenticator in self.build():
            asked = authenticator.authenticate(request)
            asked.addErrback(lambda failure: None)
            asked.cancel()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_settingsDoNotShow(self):
        """Neither a configuration nor any part of it shows its secrets."""
        shown = repr(self.settings) + str(self.settings)
        for server in self.settings.servers:
            shown += repr(server) + repr([server[group] for group in SERVER_SETTINGS])
        shown += repr(self.settings[SandboxSettings])
        self.assertNotIn(PLANTED, shown)
        self.assertIn("10.0.0.1", shown)

    def test_authenticatorsDoNotShow(self):
        """Nor does any object that is built from it."""
        for _, authenticator in self.build():
            self.assertNotIn(PLANTED, f"{authenticator!r} {authenticator}")


class SecretTests(SynchronousTestCase):
    """Values that contain secrets."""

    def test_fields(self):
        """Every attrs class with a field for a secret leaves it out of its repr."""
        classes = list(attrsClasses())
        self.assertIn(Credentials, classes)
        secret = re.compile(r"secret|password$|pass_?phrase|^plain$", re.IGNORECASE)
        found = {
            f"{value.__qualname__}.{attribute.name}": attribute.repr
            for value in classes
            for attribute in attrs.fields(value)
            if secret.search(attribute.name) and attribute.type not in (bool, "bool")
        }
        self.assertIn("Route.password", found)
        self.assertEqual([name for name, shown in found.items() if shown], [])

    def test_directives(self):
        """A secret directive is not in the repr of its settings class; the others are."""
        for known in allDirectives():
            attribute = getattr(attrs.fields(known.group), known.field)
            self.assertEqual(attribute.repr, not known.secret, known.name)

    def test_values(self):
        """The values that carry a password do not show it."""
        carriers = (
            Credentials(Method.PLAIN, b"joe", PLANTED.encode()),
            Route((), b"joe", PLANTED.encode()),
            parsePassword(b"{PLAIN}" + PLANTED.encode()),
            PasswordLogin(b"joe", PLANTED.encode()),
            LoginRequest("imap", Credentials(Method.PLAIN, b"joe", PLANTED.encode()), Client("192.0.2.7")),
            Section(SERVER, "server imap", {"auth_http_header": PLANTED}),
            IniFile(f"[server imap]\nauth_http_header = {PLANTED}\n", "gateway.ini", (), SECTIONS).sections,
        )
        for value in carriers:
            self.assertNotIn(PLANTED, f"{value!r} {value}")


class ClockTests(SynchronousTestCase):
    """Uses of the global reactor."""

    def test_build(self):
        """Authenticators use the reactor that they are given; a clock is enough to build them."""
        settings = parse("[server x]\nprotocol = imap\nlisten = 127.0.0.1:1\nauth_http = http://127.0.0.1/")
        (server,) = settings.servers
        kind = authenticatorKind(server)
        assert kind is not None
        clock = Clock()
        kind.build(server, None, clock, Journal())
        self.assertEqual(clock.getDelayedCalls(), [])
