"""
Which module may import which. C{LAYERS} holds every module of mailgate, from the bottom up: a module imports only from
layers below its own, and so never another of its own layer.

What stands under C{if TYPE_CHECKING:} is not imported, and may point anywhere.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Set

from twisted.trial.unittest import SynchronousTestCase

import mailgate

LAYERS = (
    # what is wrong with a configuration, and what options need
    "problems needs",
    # what imports nothing: the release, the words of a login, the grammar of values, of HTTP and of mail
    "_version clienthello descriptors directives networks fairqueue login httpresponse httpheaders openssl poller"
    " keptconnections timers imapcommand crypt3 shares distinguishedname verifyerrors tlserrors reparenting background"
    " lostlines lastwords rootfiles regularfiles capabilities connectionerrors inifile"
    " sandbox.message sandbox.certificate",
    # where events may go
    "backenderrors goodbyes loglevels syslog lograte secretvalues strays logfile notify activation pipes",
    # hashes of passwords
    "slowhashes",
    # the package itself, and what only needs one of those
    "mailgate names listen journal privileges pidfile dialogue sasl authdialect passwords httpconnection proxyprotocol"
    " tlsfiles clientcertificate ticketring resolver limits sandbox.settings sandbox.search sandbox.structure"
    " identity proxysettings quickack",
    # TLS: a command at a time, a server's context, all that can be said of it; its engine; lines about a connection
    "sslconf reachability ticketkeys tlsengine httpagent backendtls backendreply connectionlog",
    "servertls certificatechecks",
    "tls",
    # the ledger, the extension points, what auth_http and auth_file say; TLS upon descriptors
    "listensockets workers control session interfaces authhttp authpresets accounts hashing tlslayer nameservers"
    " sandbox.mailbox sandbox.welcome",
    # how bytes move; connections upon descriptors; how connections end; the file of auth_file
    "relay draining authcache accountfile transport reversedns sandbox.account sandbox.imap4",
    # lines out of them; the backend's side; who makes such connections, and relays between them
    "framing client port connecting relayend authsettings sandbox.pop3 sandbox.smtp sandbox.authhttp",
    # SASL on the client's side; which rights clients get at backends; all of those in one reactor; the services that
    # auth_http asks
    "saslserver imapsettings smtpsettings smtptrust leanreactor streamrelay connectionlimit sharedservices"
    " connector sandbox.login",
    # the client's side
    "loginflow smtpclient",
    "server",
    # what comes before a dialogue
    "realip",
    # what can be chosen: none of these knows another
    "protocols protocols.imap4 protocols.pop3 protocols.smtp"
    " authenticators authenticators.http authenticators.passwdfile authenticators.passthrough"
    " listener sandbox sandbox.service",
    # the choice
    "registry",
    # a server as a whole; the ini file
    "serverchecks pitfalls",
    "config",
    # what runs: in one process, or in several
    "service watching renewal exitstatus supervision",
    "generations orphan",
    "master upgrade",
    # what is asked of the process, by whom, and what it is to those around it
    "operation",
    "signals commandsocket",
    "process startchecks",
    "tap",
    "worker",
    "zygote",
    # nginx.conf into an ini file; what is asked of a gateway that runs
    "nginxconf nginxvalues commands",
    "nginxsections",
    "nginxmapping",
    "nginximport",
    "console",
)

SANDBOX_MAY_USE = {"directives", "login", "tls"}
"""What of mailgate the sandbox's servers, which stand for somebody else's, build upon."""

ROOT = os.path.dirname(os.path.abspath(mailgate.__file__))


def shortName(module: str) -> str:
    """C{module} without C{mailgate.}; the package itself keeps its name."""
    return module.removeprefix("mailgate.")


def ranks() -> dict[str, int]:
    """The layer of each module, the lowest being 0."""
    return {shortName(name): rank for rank, layer in enumerate(LAYERS) for name in layer.split()}


def modules() -> dict[str, str]:
    """The source of each module outside of the tests, by its name."""
    found = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("test", "__pycache__")]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as source:
                    found[moduleName(path)] = source.read()
    return found


def moduleName(path: str) -> str:
    """The short name of the module in the file C{path}."""
    parts = os.path.relpath(path, os.path.dirname(ROOT)).removesuffix(".py").split(os.sep)
    return shortName(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def isTypeChecking(node: ast.AST) -> bool:
    """Whether C{node} is C{if TYPE_CHECKING:}, in either spelling."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that is in C{node} and is executed some day, functions' bodies included."""
    for child in ast.iter_child_nodes(node):
        if isTypeChecking(child):
            assert isinstance(child, ast.If)
            for otherwise in child.orelse:
                yield otherwise
                yield from statements(otherwise)
        else:
            yield child
            yield from statements(child)


def imported(source: str, known: Set[str]) -> set[str]:
    """The short names of mailgate's modules that C{source} imports, those C{known} being modules."""
    found: set[str] = set()
    for statement in statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "relative imports hide what they import"
            module = statement.module or ""
            within = [f"{module}.{alias.name}" for alias in statement.names]
            names = [name if shortName(name) in known else module for name in within]
        else:
            continue
        found.update(shortName(name) for name in names if name.split(".")[0] == "mailgate")
    return found


def upward(sources: dict[str, str], layers: dict[str, int]) -> list[str]:
    """The imports that do not go down, as C{importing -> imported}."""
    return [
        f"{name} -> {other}"
        for name, source in sorted(sources.items())
        for other in sorted(imported(source, sources.keys()))
        if layers[other] >= layers[name]
    ]


class LayersTests(SynchronousTestCase):
    """The modules of mailgate, held against the table."""

    def test_complete(self):
        """Every module has its place in the table, and the table knows no others."""
        self.assertEqual(sorted(modules()), sorted(ranks()))

    def test_once(self):
        """No module has two places."""
        named = [name for layer in LAYERS for name in layer.split()]
        self.assertEqual(len(named), len(set(named)))

    def test_downward(self):
        """Imports go downward only."""
        self.assertEqual(upward(modules(), ranks()), [])

    def test_protocols(self):
        """A protocol knows neither an authenticator nor another protocol."""
        self.assertEqual(self.meetings("protocols."), [])

    def test_authenticators(self):
        """An authenticator knows neither a protocol nor another authenticator."""
        self.assertEqual(self.meetings("authenticators."), [])

    def meetings(self, prefix: str) -> list[tuple[str, str]]:
        sources = modules()
        members = [name for name in sources if name.startswith(prefix)]
        self.assertGreater(len(members), 2)
        return [
            (name, other)
            for name in members
            for other in imported(sources[name], sources.keys())
            if other.startswith(("protocols", "authenticators"))
        ]

    def test_sandbox(self):
        """The sandbox stands for other people's servers: it shares no more than words and settings with the gateway."""
        sources = modules()
        used = {
            other
            for name, source in sources.items()
            if name.startswith("sandbox")
            for other in imported(source, sources.keys())
            if not other.startswith("sandbox")
        }
        self.assertEqual(used - SANDBOX_MAY_USE, set())

    def test_sandboxIsKnownToFew(self):
        """Nothing that serves a connection of a real gateway knows that there is a sandbox."""
        sources = modules()
        knowing = {
            name
            for name, source in sources.items()
            if not name.startswith("sandbox")
            and any(other.startswith("sandbox") for other in imported(source, sources.keys()))
        }
        self.assertEqual(knowing - {"registry", "config", "service", "generations", "tap"}, set())

    def test_noTests(self):
        """Nothing outside of the tests imports them."""
        sources = modules()
        for name, source in sources.items():
            for other in imported(source, sources.keys()):
                self.assertFalse(other.startswith("test"), f"{name} imports {other}")

    def test_noGlobalReactor(self):
        """Nobody imports the global reactor when a module is imported."""
        for name, source in modules().items():
            for statement in ast.parse(source).body:
                if isinstance(statement, ast.ImportFrom) and statement.module == "twisted.internet":
                    self.assertNotIn("reactor", [alias.name for alias in statement.names], name)


class CheckTests(SynchronousTestCase):
    """The check itself, against sources that do what they should not."""

    known = frozenset({"login", "session", "protocols", "protocols.pop3"})

    def test_forms(self):
        """Modules are found in each form of an import, in functions too."""
        for source, expected in (
            ("from mailgate.login import Method", {"login"}),
            ("import mailgate.session", {"session"}),
            ("import mailgate.session as s, os", {"session"}),
            ("from mailgate.protocols import pop3", {"protocols.pop3"}),
            ("from mailgate import login, __version__", {"login", "mailgate"}),
            ("def f():\n    from mailgate.login import Method", {"login"}),
            ("try:\n    import mailgate.login\nexcept ImportError:\n    import mailgate.session", {"login", "session"}),
        ):
            self.assertEqual(imported(source, self.known), expected, source)

    def test_others(self):
        """Other packages do not count, even where their names begin alike."""
        self.assertEqual(imported("import os, mailgate2.login\nfrom twisted.mail import smtp", self.known), set())

    def test_typeChecking(self):
        """What only a type checker imports does not count; its opposite does."""
        self.assertEqual(imported("if TYPE_CHECKING:\n    from mailgate.login import X", self.known), set())
        self.assertEqual(imported("if typing.TYPE_CHECKING:\n    import mailgate.login", self.known), set())
        source = "if TYPE_CHECKING:\n    import mailgate.login\nelse:\n    import mailgate.session"
        self.assertEqual(imported(source, self.known), {"session"})

    def test_upward(self):
        """An import of something above, or beside, is found."""
        sources = {"low": "import mailgate.high", "high": "import mailgate.beside", "beside": "import mailgate.low"}
        self.assertEqual(upward(sources, {"low": 0, "high": 1, "beside": 1}), ["high -> beside", "low -> high"])

    def test_relative(self):
        """A relative import is refused."""
        self.assertRaises(AssertionError, imported, "from . import login", self.known)
