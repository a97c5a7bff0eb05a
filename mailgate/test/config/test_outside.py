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
    """The directives by which the authenticators of C{ini}'s servers are chosen."""
    return [kind.directive for kind in map(authenticatorKind, parse(ini).servers) if kind is not None]


def found(ini: str, **changes: Any) -> list[str]:
    """What is wrong with C{ini}, a line each."""
    try:
        parse(ini, "g.ini", **changes)
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


class EntryPointCase(SynchronousTestCase):
    """Distributions in a folder that Python looks in. Each module gets a name of its own, as imports are for good."""

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
        """Install the distribution "mailgate-scratch", whose module has C{source}, and one entry point."""
        writeDistribution(self.folder, "mailgate_scratch", {name: f"{self.module}:{what}"}, {self.module: source})

    def refused(self, source: str, *settings: str) -> str:
        """The one line that is said of an entry point to C{source}."""
        self.install(source)
        (line,) = found(SERVER + SCRATCH)
        where = f'the entry point "scratch_auth = {self.module}:SCRATCH" of mailgate_scratch 1.0 '
        before, there, reason = line.partition(where)
        self.assertEqual((before, there), ("g.ini:4: [server imap] scratch_auth: ", where), line)
        return reason


class EntryPointTests(EntryPointCase):
    """A kind that another distribution brings."""

    def test_chosen(self) -> None:
        """Its directive chooses it, and its directives are read as mailgate's own."""
        self.install()
        (server,) = parse(SERVER + SCRATCH).servers
        kind = authenticatorKind(server)
        assert kind is not None
        self.assertEqual((kind.name, kind.directive), ("scratch", "scratch_auth"))
        self.assertEqual(server[kind.settings].backend, ("127.0.0.1", 143))
        self.assertNotIn("sesame", repr(server[kind.settings]))
        self.assertIn("  logins: plain, checked by scratch_auth", list(describe(parse(SERVER + SCRATCH))))

    def test_order(self) -> None:
        """It does not matter whether its other directives stand before or behind."""
        self.install()
        parse(SERVER + "scratch_password = x\nscratch_auth = 127.0.0.1:143\n")

    def test_inherited(self) -> None:
        """[mail] has it for all servers, and a server's own way to judge takes its place, as does it another's."""
        self.install()
        mail = f"[mail]\nauth_file_cache_ttl = 1s\n{SCRATCH}"
        self.assertEqual(judges(f"{mail}{SERVER}{OTHER}auth_http = h/"), ["scratch_auth", "auth_http"])
        self.assertEqual(judges(f"[mail]\nauth_http = h/\n{SERVER}{SCRATCH}"), ["scratch_auth"])

    def test_beforeProxyPass(self) -> None:
        """C{proxy_pass} beside it is the default backend."""
        self.install()
        self.assertEqual(judges(f"{SERVER}proxy_pass = 10.0.0.1:143\n{SCRATCH}"), ["scratch_auth"])

    def test_guarded(self) -> None:
        """Guesses are slowed down and counted, where it does not say otherwise."""
        self.install()
        (server,) = parse(SERVER + SCRATCH).servers
        self.assertEqual((server[DialogueSettings].authDelay, server[DialogueSettings].maxAuthFailures), (2.0, 5))

    def test_mistakes(self) -> None:
        """What is wrong with its directives is told as it is of mailgate's own."""
        self.install()
        for written, line in (
            (
                "scratch_auth = nowhere\n",
                "4: [server imap] scratch_auth = nowhere: must be host:port, ",
            ),
            (SCRATCH + "scratch_strict = yes", '6: [server imap] scratch_strict = yes: must be "on" or "off"'),
            (
                SCRATCH + "scratch_strct = on",
                "6: [server imap] scratch_strct: is no known option; did you mean scr",
            ),
            (SCRATCH + "auth_http = h/", "6: [server imap] auth_http: cannot stand together with scratch_auth"),
            ("scratch_auth = 127.0.0.1:143\n", " [server imap] scratch_password: is missing"),
            (SCRATCH + "imap_auth = cram-md5", "imap_auth: offers cram-md5, which scratch_auth cannot judge"),
            (
                SCRATCH + "[mailgate]\nscratch_strict = on",
                "scratch_strict: does not belong here, but in [mail]",
            ),
        ):
            lines = found(SERVER + written)
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(line, lines[0])

    def test_withoutEffect(self) -> None:
        """A directive that changes nothing is warned of; the kind is known in the whole file."""
        self.install()
        other = OTHER + "auth_http = h/\nscratch_strict = on\n"
        (warning,) = [str(each) for each in parse(SERVER + SCRATCH + other).warnings if "scratch" in str(each)]
        self.assertIn("[server other] scratch_strict: has no effect without scratch_auth", warning)

    def test_typo(self) -> None:
        """A name that is nearly its is told so, whether it is in use or not."""
        self.install()
        option, _ = found(SERVER + "scratch_aut = 127.0.0.1:143\n")
        self.assertIn("scratch_aut: is no known option; did you mean scratch_auth", option)
        self.assertNotIn(self.module, sys.modules)

    def test_notImported(self) -> None:
        """What a configuration does not write is not imported; where it has no options of others, nothing is read."""
        self.install("raise RuntimeError")
        entrypoints._table.cache_clear()
        self.patch(metadata, "entry_points", lambda **arguments: self.fail("entry points are looked for"))
        parse(SERVER + "auth_http = h/\n")
        readOne(f"[mailgate]\npid = x.pid\n{SERVER}{SCRATCH}", "g.ini", PIDSettings)
        self.assertNotIn(self.module, sys.modules)

    def test_readOnce(self) -> None:
        """The metadata of all distributions are read once in a process."""
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
        """One that has been installed since is found by a reload."""
        self.assertIn("is no known option", found(SERVER + SCRATCH)[0])
        self.install()
        self.assertEqual(found(SERVER + SCRATCH), [])

    def test_hasty(self) -> None:
        """One whose import imports the reactor is refused where there are workers to be forked."""
        name = "twisted.internet.reactor"
        self.patch(sys, "modules", {key: module for key, module in sys.modules.items() if key != name})
        self.install(f"{KIND}\nimport sys\nsys.modules[{name!r}] = sys\n")
        (line,) = found(f"{SERVER}{SCRATCH}[mailgate]\nworker_processes = 2\n")
        self.assertIn("4: [server imap] scratch_auth: imports the reactor when it is imported itself", line)
        sys.modules.pop(name)
        sys.modules.pop(self.module)
        self.assertEqual(found(SERVER + SCRATCH), [])


class BrokenTests(EntryPointCase):
    """An entry point that gives no kind is refused in one line."""

    def test_import(self) -> None:
        """Its module cannot be imported, or lacks what it names."""
        reason = self.refused("import nowhere")
        self.assertEqual(reason, "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'")

    def test_twoLines(self) -> None:
        """Whatever its module says when it fails."""
        self.assertEqual(self.refused("raise ValueError('a\\nb')"), "cannot be loaded: ValueError: a b")

    def test_exit(self) -> None:
        """It is a script that ends its process, which would be the gateway's."""
        self.assertEqual(self.refused("raise SystemExit(3)"), "cannot be loaded: SystemExit: 3")

    def test_syntax(self) -> None:
        """It is no Python."""
        self.assertIn("cannot be loaded: SyntaxError: ", self.refused("1 +"))

    def test_attribute(self) -> None:
        """Its module does not have it."""
        self.assertIn("cannot be loaded: AttributeError: ", self.refused("x = 1"))

    def test_noKind(self) -> None:
        """It names something else."""
        self.assertEqual(
            self.refused("SCRATCH = 5"), "names a value of type int, and no mailgate.interfaces.AuthenticatorKind"
        )

    def changed(self, what: str) -> str:
        """What is said of a kind with those attributes changed."""
        return self.refused(f"{KIND}\nfrom attrs import evolve\nclass No: pass\nSCRATCH = evolve(SCRATCH, {what})\n")

    def test_otherName(self) -> None:
        """It has a directive by which mailgate's own is chosen, or just another one."""
        self.assertEqual(
            self.changed('directive="auth_http"'), "is named for another directive than its kind, which has auth_http"
        )

    def test_sameName(self) -> None:
        """Its name is one of mailgate's own."""
        self.assertEqual(self.changed('name="http"'), "gives a kind with the name http, which is one of mailgate's own")

    def test_settings(self) -> None:
        """Its settings are none."""
        self.assertEqual(self.changed("settings=No"), "gives a kind whose settings are no attrs class")

    def test_undeclared(self) -> None:
        """Its settings do not declare its directive."""
        reason = self.changed("settings=type(AuthenticatorKind)('X', (), {}) and frozen(No)")
        self.assertEqual(reason, "gives a kind whose settings do not declare scratch_auth")

    def test_methods(self) -> None:
        """It judges nothing, or words."""
        reason = self.changed('methods={"plain"}')
        self.assertEqual(reason, "gives a kind whose methods are no set of mailgate.login.Method")

    def test_clash(self) -> None:
        """It declares a directive of mailgate's."""
        source = KIND.replace('"scratch_strict"', '"auth_http"')
        self.assertEqual(self.refused(source), "declares the directive auth_http, which there is already")

    def test_level(self) -> None:
        """It declares one for a section where there are no servers."""
        source = KIND.replace("flag, False)", 'flag, False, only="mailgate")')
        self.assertEqual(
            self.refused(source), "declares scratch_strict for other sections than [mail] and [server NAME]"
        )

    def test_two(self) -> None:
        """Two distributions have one for the same directive."""
        self.install()
        writeDistribution(self.folder, "other", {"scratch_auth": "x:Y"})
        (line,) = found(SERVER + SCRATCH)
        self.assertIn("scratch_auth: is an entry point of mailgate_scratch 1.0 and other 1.0: uninstall one of", line)

    def test_mail(self) -> None:
        """It is told once where [mail] has it for several servers."""
        self.install("import nowhere")
        self.assertEqual(len(found(f"[mail]\n{SCRATCH}{SERVER}{OTHER}")), 1)


@frozen
class Settings:
    """Those of a kind that an application brings."""

    word: str = directive("mine_word", text, "none")


@frozen
class Wrong:
    """They would take another's directive, or belong elsewhere."""

    word: str = directive("auth_http", text, "none")


@frozen
class Elsewhere:
    """They belong elsewhere."""

    word: str = directive("mine_word", text, "none", only="mailgate")


MINE = AuthenticatorKind("mine", "", Settings, frozenset({Method.PLAIN, Method.APOP}), lambda *_: FakeAuthenticator())


class HandedOverTests(SynchronousTestCase):
    """Authenticators that an application hands over."""

    def test_bare(self) -> None:
        """With one for it, a server needs none in the configuration; guesses are slowed down and counted."""
        (server,) = parse(SERVER, authenticators={"imap": FakeAuthenticator()}).servers
        kind = authenticatorKind(server)
        assert kind is not None
        self.assertEqual((kind.name, kind.methods, kind.isLent), ("FakeAuthenticator", {Method.PLAIN}, True))
        self.assertEqual((server[DialogueSettings].authDelay, server[DialogueSettings].maxAuthFailures), (2.0, 5))

    def test_load(self) -> None:
        """C{load} takes them, too."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as opened:
            opened.write(SERVER)
        self.assertRaises(ConfigurationError, load, path)
        self.assertIsInstance(load(path, authenticators={"imap": MINE}), GatewaySettings)

    def test_others(self) -> None:
        """A server that has none is refused as before."""
        (line,) = found(SERVER + OTHER, authenticators={"imap": MINE})
        self.assertIn("[server other] auth_http: is missing", line)

    def test_unknown(self) -> None:
        """There is no server of that name."""
        (line,) = found(f"{SERVER}auth_http = h/\n", authenticators={"imp": MINE})
        self.assertEqual(
            line, "g.ini: [server imp]: is missing, and the application has an authenticator for it; did you mean imap?"
        )

    def test_faultyServer(self) -> None:
        """A server that cannot be read is none that is missing."""
        (line,) = found("[server imap]\nprotocol = imap\n", authenticators={"imap": MINE})
        self.assertIn("listen: is missing", line)

    def test_before(self) -> None:
        """It goes before what the configuration says."""
        (server,) = parse(f"{SERVER}auth_http = h/\n", authenticators={"imap": MINE}).servers
        self.assertIs(authenticatorKind(server), MINE)

    def test_methods(self) -> None:
        """What a server offers must be what it can judge: passwords, or what it says."""
        ini = f"{SERVER}imap_auth = cram-md5 plain\n"
        (line,) = found(ini, authenticators={"imap": FakeAuthenticator()})
        self.assertIn("imap_auth: offers cram-md5, which FakeAuthenticator cannot judge", line)
        capable = FakeAuthenticator()
        capable.methods = [Method.PLAIN, Method.CRAM_MD5]  # type: ignore[attr-defined]
        self.assertEqual(found(ini, authenticators={"imap": capable}), [])

    def test_settings(self) -> None:
        """The directives of a kind are read, as are those of [mail] that it shares with another server."""
        ini = f"[mail]\nmine_word = yes\n{SERVER}"
        (server,) = parse(ini, authenticators={"imap": MINE}).servers
        self.assertEqual(server[Settings].word, "yes")
        (line,) = found(ini, authenticators={"imap": FakeAuthenticator()})
        self.assertIn("mine_word: is no known option", line)

    def test_twice(self) -> None:
        """One kind may judge for several servers, and be one of mailgate's own."""
        parse(SERVER + OTHER, authenticators={"imap": MINE, "other": MINE})
        own = evolve(passthrough.KIND, directive="")
        parse(f"{SERVER}auth_http = h/\nproxy_pass = 10.0.0.1:1\n", authenticators={"imap": own})

    def test_clash(self) -> None:
        """A kind whose directives are taken is a mistake of the application."""
        for settings in (Wrong, Elsewhere):
            with self.assertRaises(ValueError) as caught:
                parse(SERVER, authenticators={"imap": evolve(MINE, settings=settings)})
            self.assertIn("the authenticator mine declares ", str(caught.exception))

    def test_neither(self) -> None:
        """Something else is a mistake, too."""
        wrong: Any = "http://127.0.0.1/"
        self.assertRaisesRegex(TypeError, "str is neither", kindOf, wrong)

    def test_afterwards(self) -> None:
        """In settings that have been read it takes the place of the configuration's, its way with guesses too."""
        servers = parse(f"{SERVER}auth_http = h/\n").servers
        self.assertEqual(servers[0][DialogueSettings].authDelay, 0.0)
        (server,) = handOver(servers, {"imap": MINE}, "g.ini")
        self.assertIs(authenticatorKind(server), MINE)
        self.assertEqual(server[DialogueSettings].authDelay, Refusals().delay)
        (given,) = parse(f"{SERVER}auth_http = h/\nauth_delay = 7s\n").servers
        self.assertEqual(handOver([given], {"imap": MINE}, "g.ini")[0][DialogueSettings].authDelay, 7.0)

    def test_afterwardsRefused(self) -> None:
        """There, too, a server has to exist, and to offer what can be judged."""
        servers = parse(f"{SERVER}auth_http = h/\nimap_auth = cram-md5\n").servers
        error = self.assertRaises(ConfigurationError, handOver, servers, {"imap": MINE, "pop": MINE}, "gateway.ini")
        self.assertEqual(
            str(error).splitlines(),
            [
                "gateway.ini: [server pop]: is missing, and the application has an authenticator for it",
                "gateway.ini:5: [server imap] imap_auth: offers cram-md5, which mine cannot judge",
            ],
        )
