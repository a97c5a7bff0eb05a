"""
Tests for L{mailgate.backend.probing}.
"""

from __future__ import annotations

import errno

from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import BackendError
from mailgate.backend.probing import Finding, findingOf, useOf
from mailgate.test.support.healthchecks import A, B, Checked


class FindingTests(SynchronousTestCase):
    """L{findingOf}."""

    def test_failures(self) -> None:
        """What the server does wrong is the reason, with its words."""
        for error, finding in (
            (ConnectionRefusedError(), Finding(False, "refused the connection")),
            (TimeoutError(), Finding(False, "did not answer within 3 s")),
            (
                BackendError("greets with 554", b"554 no\r\n", isQuoted=True),
                Finding(False, "greets with 554", b"554 no\r\n"),
            ),
            (BackendError("answers the login", b"secret"), Finding(False, "answers the login")),
            (BackendError("refuses STLS with -ERR", counts=False), Finding(False, "refuses STLS with -ERR")),
            (OSError(errno.EHOSTUNREACH, "x"), Finding(False, "cannot be reached: No route to host")),
        ):
            self.assertEqual(findingOf(error, 3), finding)

    def test_undecided(self) -> None:
        """A server that is full works, and trouble of the gateway itself is not the server's."""
        self.assertIsNone(findingOf(BackendError("greets with 421", b"421 full\r\n", counts=False), 3).passed)
        for number in (errno.EMFILE, errno.EADDRNOTAVAIL):
            self.assertIsNone(findingOf(ConnectError(number), 3).passed)
            self.assertIsNone(findingOf(OSError(number, "x"), 3).passed)

    def test_text(self) -> None:
        """The server's words are escaped, and are shown only where there are some."""
        self.assertEqual(Finding(False, "x", b'554 "\x1b\r\n').text, ', text "554 \\"\\x1b"')
        self.assertEqual(Finding(False, "x").text, "")


class UseTests(SynchronousTestCase):
    """L{useOf}: as which protocol a group is checked."""

    def server(self, groups: str, servers: str) -> str | None:
        checked = Checked(f"{groups}\n{servers}")
        use = useOf(checked.upstreams.groups[0], checked.uses, checked.upstreams)
        return None if use is None else use.server.name

    def group(self, port: int, check: str = "on") -> str:
        return f"[upstream store]\nserver = {A}:{port}\nhealth_check = {check}\n[upstream other]\nserver = {B}:1\n"

    SERVERS = """
[server in]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = {imap}
[server out]
listen = 127.0.0.1:10110
protocol = pop3
proxy_pass = {pop3}
[server out2]
listen = 127.0.0.1:10111
protocol = pop3
proxy_pass = {pop3}
"""

    def test_named(self) -> None:
        """The first server whose proxy_pass names the group decides, whatever the port is."""
        servers = self.SERVERS.format(imap="other", pop3="Store")
        self.assertEqual(self.server(self.group(143), servers), "out")

    def test_variables(self) -> None:
        """So does one whose proxy_pass may stand for it."""
        rules = "[map place]\nsource = $user\ndefault = other\njoe = store\n"
        servers = self.SERVERS.format(imap="other", pop3="$place")
        self.assertEqual(self.server(self.group(143) + rules, servers), "out")

    def test_protocolVariable(self) -> None:
        """C{$protocol} is that of the server."""
        groups = f"[upstream pop3-store]\nserver = {A}:5\nhealth_check = on\n[upstream imap-store]\nserver = {B}:1\n"
        for text in ("$protocol-store", "${protocol}-store"):
            self.assertEqual(self.server(groups, self.SERVERS.format(imap=text, pop3=text)), "out")

    def test_port(self) -> None:
        """If only the authentication service names the group, its port decides."""
        servers = self.SERVERS.format(imap="other", pop3="other")
        for port, check, server in (
            (143, "on", "in"),
            (995, "on", "out"),
            (4143, "on", None),
            (4143, "port=110", "out"),
        ):
            self.assertEqual(self.server(self.group(port, check), servers), server)

    def test_parameter(self) -> None:
        """C{protocol=} decides before all others."""
        servers = self.SERVERS.format(imap="store", pop3="other")
        self.assertEqual(self.server(self.group(4143, "protocol=POP3"), servers), "out")

    def test_onlyProtocol(self) -> None:
        """If all servers have one protocol, the port does not matter."""
        checked = Checked(self.group(4143) + self.SERVERS.format(imap="other", pop3="other").split("[server out]")[0])
        use = useOf(checked.upstreams.groups[0], checked.uses, checked.upstreams)
        assert use is not None
        self.assertEqual(use.server.name, "in")

    def test_unknown(self) -> None:
        """Where the protocol is not known, nothing is checked, and the log says so."""
        checked = Checked(self.group(4143) + self.SERVERS.format(imap="other", pop3="other")).start()
        self.assertEqual(checked.elapse(20), [])
        self.assertEqual(
            checked.log,
            [
                "upstream store: health_check does nothing: it is not known which protocol the servers speak; add"
                " protocol=NAME to health_check"
            ],
        )
