"""
Tests for L{mailgate.config.outside} and L{mailgate.config.entrypoints}.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Any

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth import passthrough
from mailgate.cli.main import describe
from mailgate.config import GatewaySettings, authenticatorKind, entrypoints, load, parse, readOne
from mailgate.config.outside import handOver, kindOf
from mailgate.directives import ConfigurationError, directive, text
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import AuthenticatorKind, Refusals
from mailgate.login import Method
from mailgate.system.pidfile import PIDSettings
from mailgate.test.support.distributions import KIND, writeDistribution
from mailgate.testing import FakeAuthenticator

SERVER = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:1143\n"
OTHER = "[server other]\nprotocol = imap\nlisten = 127.0.0.1:1144\n"
SCRATCH = "scratch_auth = 127.0.0.1:143\nscratch_password = sesame\n"


def judges(ini: str) -> list[str]:
    """The directives that select the authenticators of C{ini}'s servers."""
    return [kind.directive for kind in map(authenticatorKind, parse(ini).servers) if kind is not None]


def found(ini: str, **changes: Any) -> list[str]:
    """The mistakes in C{ini}, one line each."""
    try:
        parse(ini, "g.ini", **changes)
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


class EntryPointCase(SynchronousTestCase):
    """Distributions in a folder of Python's path. Each module gets a unique name, because imports last."""

    number = 0

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.patch(sys, "path", [*sys.path, self.folder])
        entrypoints.installed(anew=True)
        self.addCleanup(entrypoints._table.cache_clear)
        EntryPointCase.number += 1
        self.module = f"scratch{EntryPointCase.number}"
        self.addCleanup(sys.modules.pop, self.module, None)

    def install(self, source: str = KIND, name: str = "scratch_auth", what: str = "SCRATCH") -> None:
        """Install the distribution "mailgate-scratch" with a module of C{source} and one entry point."""
        writeDistribution(self.folder, "mailgate_scratch", {name: f"{self.module}:{what}"}, {self.module: source})

    def refused(self, source: str, *settings: str) -> str:
        """The only message about an entry point to C{source}."""
        self.install(source)
        (line,) = found(SERVER + SCRATCH)
        where = f'the entry point "scratch_auth = {self.module}:SCRATCH" of mailgate_scratch 1.0 '
        before, there, reason = line.partition(where)
        self.assertEqual((before, there), ("g.ini:4: [server imap] scratch_auth: ", where), line)
        return reason


class EntryPointTests(EntryPointCase):
    """A kind from another distribution."""

    def test_chosen(self) -> None:
        """Its directive selects it, and its directives are read like mailgate's own."""
        self.install()
        (server,) = parse(SERVER + SCRATCH).servers
        kind = authenticatorKind(server)
        assert kind is not None
        self.assertEqual((kind.name, kind.directive), ("scratch", "scratch_auth"))
        self.assertEqual(server[kind.settings].backend, ("127.0.0.1", 143))
        self.assertNotIn("sesame", repr(server[kind.settings]))
        self.assertIn("  logins: plain, checked by scratch_auth", list(describe(parse(SERVER + SCRATCH))))

    def test_order(self) -> None:
        """Its other directives may be before or after that."""
        self.install()
        parse(SERVER + "scratch_password = x\nscratch_auth = 127.0.0.1:143\n")

    def test_inherited(self) -> None:
        """[mail] selects it for all servers; a server that selects another authenticator replaces it."""
        self.install()
        mail = f"[mail]\nauth_file_cache_ttl = 1s\n{SCRATCH}"
        self.assertEqual(judges(f"{mail}{SERVER}{OTHER}auth_http = h/"), ["scratch_auth", "auth_http"])
        self.assertEqual(judges(f"[mail]\nauth_http = h/\n{SERVER}{SCRATCH}"), ["scratch_auth"])

    def test_beforeProxyPass(self) -> None:
        """Together with it, C{proxy_pass} is the default backend."""
        self.install()
        self.assertEqual(judges(f"{SERVER}proxy_pass = 10.0.0.1:143\n{SCRATCH}"), ["scratch_auth"])

    def test_guarded(self) -> None:
        """Guessing is slowed down and limited, unless the kind says otherwise."""
        self.install()
        (server,) = parse(SERVER + SCRATCH).servers
        self.assertEqual((server[DialogueSettings].authDelay, server[DialogueSettings].maxAuthFailures), (2.0, 5))

    def test_mistakes(self) -> None:
        """Mistakes in its directives are reported like those in mailgate's own."""
        self.install()
        for written, line in (
            (
                "scratch_auth = nowhere\n",
                "4: [server imap] scratch_auth = nowhere: must be host:port, ",
            ),
            (SCRATCH + "scratch_strict = yes", '6: [server imap] scratch_strict = yes: must be "on" or "off"'),
            (
                SCRATCH + "scratch_strct = on",
                "6: [server imap] scratch_strct: is an unknown option; did you mean scr",
            ),
            (
                SCRATCH + "auth_http = h/",
                "6: [server imap] auth_http: conflicts with scratch_auth; remove one of them",
            ),
            ("scratch_auth = 127.0.0.1:143\n", " [server imap] scratch_password: is missing"),
            (SCRATCH + "imap_auth = cram-md5", "imap_auth: offers cram-md5, which scratch_auth does not support"),
            (
                SCRATCH + "[mailgate]\nscratch_strict = on",
                "scratch_strict: belongs in [mail]; move it there",
            ),
        ):
            lines = found(SERVER + written)
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(line, lines[0])

    def test_withoutEffect(self) -> None:
        """A directive of it that has no effect causes a warning; the kind is known in the whole file."""
        self.install()
        other = OTHER + "auth_http = h/\nscratch_strict = on\n"
        (warning,) = [str(each) for each in parse(SERVER + SCRATCH + other).warnings if "scratch" in str(each)]
        self.assertIn("[server other] scratch_strict: has no effect without scratch_auth", warning)

    def test_typo(self) -> None:
        """A similar name is suggested, whether the kind is in use or not."""
        self.install()
        option, _ = found(SERVER + "scratch_aut = 127.0.0.1:143\n")
        self.assertIn("scratch_aut: is an unknown option; did you mean scratch_auth", option)
        self.assertNotIn(self.module, sys.modules)

    def test_notImported(self) -> None:
        """Kinds that a configuration does not use are not imported; without unknown options, no metadata are read."""
        self.install("raise RuntimeError")
        entrypoints._table.cache_clear()
        self.patch(metadata, "entry_points", lambda **arguments: self.fail("entry points are looked for"))
        parse(SERVER + "auth_http = h/\n")
        readOne(f"[mailgate]\npid = x.pid\n{SERVER}{SCRATCH}", "g.ini", PIDSettings)
        self.assertNotIn(self.module, sys.modules)

    def test_readOnce(self) -> None:
        """The metadata of distributions are read once in a process."""
        self.install()
        reads: list[object] = []
        read = metadata.entry_points
        entrypoints._table.cache_clear()

        def readAgain(**arguments: Any) -> Any:
            reads.append(arguments)
            return read(**arguments)

        self.patch(metadata, "entry_points", readAgain)
        for _ in range(3):
            parse(SERVER + SCRATCH)
        self.assertEqual(reads, [{"group": "mailgate.authenticators"}])

    def test_installedLater(self) -> None:
        """A reload finds a distribution that was installed in the meantime."""
        self.assertIn("is an unknown option", found(SERVER + SCRATCH)[0])
        self.install()
        self.assertEqual(found(SERVER + SCRATCH), [])

    def test_hasty(self) -> None:
        """A kind whose import imports the reactor is refused if there are several workers."""
        name = "twisted.internet.reactor"
        self.patch(sys, "modules", {key: module for key, module in sys.modules.items() if key != name})
        self.install(f"{KIND}\nimport sys\nsys.modules[{name!r}] = sys\n")
        (line,) = found(f"{SERVER}{SCRATCH}[mailgate]\nworker_processes = 2\n")
        self.assertIn(
            "4: [server imap] scratch_auth: loads a module that imports twisted.internet.reactor at once", line
        )
        sys.modules.pop(name)
        sys.modules.pop(self.module)
        self.assertEqual(found(SERVER + SCRATCH), [])


class BrokenTests(EntryPointCase):
    """An entry point without a usable kind is refused with one line."""

    def test_import(self) -> None:
        """Its module cannot be imported, or lacks the name."""
        reason = self.refused("import nowhere")
        self.assertEqual(reason, "cannot be imported: ModuleNotFoundError: No module named 'nowhere'")

    def test_twoLines(self) -> None:
        """The message is one line, whatever the module raises."""
        self.assertEqual(self.refused("raise ValueError('a\\nb')"), "cannot be imported: ValueError: a b")

    def test_exit(self) -> None:
        """A script that calls sys.exit does not end the gateway."""
        self.assertEqual(self.refused("raise SystemExit(3)"), "cannot be imported: SystemExit: 3")

    def test_syntax(self) -> None:
        """The module is not valid Python."""
        self.assertIn("cannot be imported: SyntaxError: ", self.refused("1 +"))

    def test_attribute(self) -> None:
        """The module does not have the name."""
        self.assertIn("cannot be imported: AttributeError: ", self.refused("x = 1"))

    def test_noKind(self) -> None:
        """The name has another type."""
        self.assertEqual(
            self.refused("SCRATCH = 5"), "names a value of type int, not a mailgate.interfaces.AuthenticatorKind"
        )

    def changed(self, what: str) -> str:
        """The message about a kind with changed attributes."""
        return self.refused(f"{KIND}\nfrom attrs import evolve\nclass No: pass\nSCRATCH = evolve(SCRATCH, {what})\n")

    def test_otherName(self) -> None:
        """It has the directive of a built-in kind, or another one."""
        self.assertEqual(
            self.changed('directive="auth_http"'), "must have the name of the directive of its kind, which is auth_http"
        )

    def test_sameName(self) -> None:
        """It has the name of a built-in kind."""
        self.assertEqual(
            self.changed('name="http"'), "provides a kind named http, which is the name of a built-in kind"
        )

    def test_settings(self) -> None:
        """Its settings are not a settings class."""
        self.assertEqual(self.changed("settings=No"), "provides a kind whose settings are not an attrs class")

    def test_undeclared(self) -> None:
        """Its settings do not declare its directive."""
        reason = self.changed("settings=type(AuthenticatorKind)('X', (), {}) and frozen(No)")
        self.assertEqual(reason, "provides a kind whose settings do not declare the directive scratch_auth")

    def test_methods(self) -> None:
        """Its methods are empty, or words."""
        reason = self.changed('methods={"plain"}')
        self.assertEqual(reason, "provides a kind whose methods are not a set of mailgate.login.Method")

    def test_clash(self) -> None:
        """It declares a directive of mailgate."""
        source = KIND.replace('"scratch_strict"', '"auth_http"')
        self.assertEqual(self.refused(source), "declares the directive auth_http, which exists already")

    def test_level(self) -> None:
        """It declares a directive for a section without servers."""
        source = KIND.replace("flag, False)", 'flag, False, only="mailgate")')
        self.assertEqual(
            self.refused(source), "declares scratch_strict for a section other than [mail] and [server NAME]"
        )

    def test_two(self) -> None:
        """Two distributions have an entry point for the same directive."""
        self.install()
        writeDistribution(self.folder, "other", {"scratch_auth": "x:Y"})
        (line,) = found(SERVER + SCRATCH)
        self.assertIn("scratch_auth: is an authenticator of mailgate_scratch 1.0 and other 1.0; uninstall all", line)

    def test_mail(self) -> None:
        """A mistake in [mail] is reported once, however many servers inherit it."""
        self.install("import nowhere")
        self.assertEqual(len(found(f"[mail]\n{SCRATCH}{SERVER}{OTHER}")), 1)


@frozen
class Settings:
    """Directives of a kind that an application provides."""

    word: str = directive("mine_word", text, "none")


@frozen
class Wrong:
    """Directives that exist already, or belong to other sections, are refused."""

    word: str = directive("auth_http", text, "none")


@frozen
class Elsewhere:
    """Directives of other sections are refused."""

    word: str = directive("mine_word", text, "none", only="mailgate")


MINE = AuthenticatorKind("mine", "", Settings, frozenset({Method.PLAIN, Method.APOP}), lambda *_: FakeAuthenticator())


class HandedOverTests(SynchronousTestCase):
    """Authenticators that an application provides."""

    def test_bare(self) -> None:
        """A server with one needs none in the configuration; guessing is slowed down and limited."""
        (server,) = parse(SERVER, authenticators={"imap": FakeAuthenticator()}).servers
        kind = authenticatorKind(server)
        assert kind is not None
        self.assertEqual((kind.name, kind.methods, kind.isLent), ("FakeAuthenticator", {Method.PLAIN}, True))
        self.assertEqual((server[DialogueSettings].authDelay, server[DialogueSettings].maxAuthFailures), (2.0, 5))

    def test_load(self) -> None:
        """C{load} accepts them too."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as opened:
            opened.write(SERVER)
        self.assertRaises(ConfigurationError, load, path)
        self.assertIsInstance(load(path, authenticators={"imap": MINE}), GatewaySettings)

    def test_others(self) -> None:
        """A server without one is refused as before."""
        (line,) = found(SERVER + OTHER, authenticators={"imap": MINE})
        self.assertIn("[server other] auth_http: is missing", line)

    def test_unknown(self) -> None:
        """There is no server of that name."""
        (line,) = found(f"{SERVER}auth_http = h/\n", authenticators={"imp": MINE})
        self.assertEqual(
            line,
            "g.ini: [server imp]: is missing, but the application provides an authenticator for it; did you mean imap?",
        )

    def test_faultyServer(self) -> None:
        """A server that cannot be read does not count as missing."""
        (line,) = found("[server imap]\nprotocol = imap\n", authenticators={"imap": MINE})
        self.assertIn("listen: is missing", line)

    def test_before(self) -> None:
        """It replaces the authenticator of the configuration."""
        (server,) = parse(f"{SERVER}auth_http = h/\n", authenticators={"imap": MINE}).servers
        self.assertIs(authenticatorKind(server), MINE)

    def test_methods(self) -> None:
        """The server may offer only methods that it supports: passwords, or its C{methods}."""
        ini = f"{SERVER}imap_auth = cram-md5 plain\n"
        (line,) = found(ini, authenticators={"imap": FakeAuthenticator()})
        self.assertIn("imap_auth: offers cram-md5, which FakeAuthenticator does not support", line)
        capable = FakeAuthenticator()
        capable.methods = [Method.PLAIN, Method.CRAM_MD5]  # type: ignore[attr-defined]
        self.assertEqual(found(ini, authenticators={"imap": capable}), [])

    def test_settings(self) -> None:
        """The directives of a kind are read, also those of [mail] that another server uses too."""
        ini = f"[mail]\nmine_word = yes\n{SERVER}"
        (server,) = parse(ini, authenticators={"imap": MINE}).servers
        self.assertEqual(server[Settings].word, "yes")
        (line,) = found(ini, authenticators={"imap": FakeAuthenticator()})
        self.assertIn("mine_word: is an unknown option", line)

    def test_twice(self) -> None:
        """One kind may serve several servers, and may be a built-in one."""
        parse(SERVER + OTHER, authenticators={"imap": MINE, "other": MINE})
        own = evolve(passthrough.KIND, directive="")
        parse(f"{SERVER}auth_http = h/\nproxy_pass = 10.0.0.1:1\n", authenticators={"imap": own})

    def test_clash(self) -> None:
        """A kind whose directives exist already is a mistake of the application."""
        for settings in (Wrong, Elsewhere):
            with self.assertRaises(ValueError) as caught:
                parse(SERVER, authenticators={"imap": evolve(MINE, settings=settings)})
            self.assertIn("the authenticator mine declares ", str(caught.exception))

    def test_neither(self) -> None:
        """Other objects are a mistake too."""
        wrong: Any = "http://127.0.0.1/"
        self.assertRaisesRegex(TypeError, "str is neither", kindOf, wrong)

    def test_afterwards(self) -> None:
        """In finished settings it replaces the authenticator of the configuration, and the limits for guessing."""
        servers = parse(f"{SERVER}auth_http = h/\n").servers
        self.assertEqual(servers[0][DialogueSettings].authDelay, 0.0)
        (server,) = handOver(servers, {"imap": MINE}, "g.ini")
        self.assertIs(authenticatorKind(server), MINE)
        self.assertEqual(server[DialogueSettings].authDelay, Refusals().delay)
        (given,) = parse(f"{SERVER}auth_http = h/\nauth_delay = 7s\n").servers
        self.assertEqual(handOver([given], {"imap": MINE}, "g.ini")[0][DialogueSettings].authDelay, 7.0)

    def test_afterwardsRefused(self) -> None:
        """There too, the server must exist, and must offer only supported methods."""
        servers = parse(f"{SERVER}auth_http = h/\nimap_auth = cram-md5\n").servers
        error = self.assertRaises(ConfigurationError, handOver, servers, {"imap": MINE, "pop": MINE}, "gateway.ini")
        self.assertEqual(
            str(error).splitlines(),
            [
                "gateway.ini: [server pop]: is missing, but the application provides an authenticator for it",
                "gateway.ini:5: [server imap] imap_auth: offers cram-md5, which mine does not support",
            ],
        )
