"""
Sticky groups before a running gateway of one process: users stay at their backend, over all protocols, and operators
move them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.main import main
from mailgate.system.exitstatus import REFUSED
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address

HOSTS = ("127.0.0.1", "127.0.0.2")
JOE = "joe@example.org"


class StickyTests(SynchronousTestCase):
    """One gateway, and two hosts that both have IMAP and POP3."""

    def setUp(self) -> None:
        self.folder = newFolder("sticky")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.pid = os.path.join(self.folder, "pid")
        self.backends: dict[tuple[str, str], ScriptedBackend] = {}
        self.listening: dict[str, int] = {}
        text = (
            f"[mailgate]\npid = {self.pid}\nerror_log = {self.folder}/gateway.log info\n[mail]\n"
            "server_name = gate.example.org\nauth_delay = 0\nlimit_req = off\nimap_capabilities = IMAP4rev1\n"
            "pop3_capabilities = TOP\n"
        )
        for protocol, login in (("imap", "LOGIN"), ("pop3", "PASS")):
            port, lines = freePort(), []
            for host in HOSTS:
                backend = self.backends[protocol, host] = ScriptedBackend(protocol, host, port)
                backend.script({login: f"{'TAG OK' if protocol == 'imap' else '+OK'} this is {host}"})
                self.addCleanup(backend.stop)
                lines.append(f"    {host}:{port} fail_timeout=1h\n")
            listening = self.listening[protocol] = freePort()
            text += f"[upstream {protocol}]\nserver =\n{''.join(lines)}sticky = user ttl=1h retain=1m\n"
            text += f"[server {protocol}]\nprotocol = {protocol}\nlisten = 127.0.0.1:{listening}\n"
            text += f"proxy_pass = {protocol}\n"
        self.text = text
        self.gateway = GatewayProcess(self.folder, text, list(self.listening.values()))
        self.addCleanup(self.gateway.forget)

    def enter(self, protocol: str, user: str = JOE) -> tuple[str, RawClient]:
        """Log in and stay; the host that answers, and the client."""
        client = RawClient(Address(protocol, self.listening[protocol], "none", ""))
        self.addCleanup(client.close)
        answer = client.login(user, "secret").decode().strip()
        return answer.rpartition(" ")[2], client

    def host(self, protocol: str, user: str = JOE) -> str:
        """Log in and leave; the host."""
        host, client = self.enter(protocol, user)
        client.close()
        return host

    def command(self, *words: str) -> tuple[int, str]:
        """The exit status of a command, and what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main((*words, "--pid", self.pid, "--timeout", "20s"))
        return status, said.getvalue()

    def at(self, protocol: str, host: str) -> str:
        return f"{host}:{self.backends[protocol, host].port}"

    def test_sticky(self) -> None:
        """A user is at one host by all protocols, until he is moved, or his host is gone."""
        self.together()
        self.moved()
        self.quiet()
        self.refused()
        self.gone()
        self.gateway.stop()

    def together(self) -> None:
        """IMAP and POP3 lead to the same host, however the name is written, and users are spread."""
        users = [f"user{number}@example.org" for number in range(12)]
        hosts = [self.host("imap", user) for user in users]
        self.assertEqual(set(hosts), set(HOSTS))
        self.assertEqual([self.host("pop3", user) for user in users], hosts)
        self.assertEqual([self.host("imap", user.upper()) for user in users], hosts)

    def moved(self) -> None:
        """After a move the next login goes to the other host; a session stays where it is."""
        before, client = self.enter("imap")
        (after,) = {*HOSTS} - {before}
        status, said = self.command("move", JOE, self.at("imap", after))
        self.assertEqual((status, f"before {self.at('imap', before)}" in said), (0, True), said)
        self.assertIn("1 session elsewhere go", said)
        self.assertEqual([self.host(each) for each in ("imap", "pop3")], [after] * 2)
        self.assertTrue(client.noop().startswith(b"OK"))
        status, said = self.command("where", JOE)
        self.assertEqual(status, 0, said)
        self.assertIn(f"{JOE} has the place {self.at('imap', after)} (upstream imap, pop3)", said)
        self.assertRegex(said, rf"{self.at('imap', before)} +1\n")
        client.close()
        waitUntil(lambda: "no session" in self.command("where", JOE)[1], "the session has ended")
        self.assertEqual(self.host("imap"), after)

    def quiet(self) -> None:
        """When he is quiet: his sessions end, the move takes place, and logins are let in at the other host."""
        before, client = self.enter("imap", "joe+lists@example.org")
        (after,) = {*HOSTS} - {before}
        status, said = self.command("move", JOE, self.at("pop3", after), "--when-quiet", "--for", "20s")
        self.assertEqual(status, 0, said)
        self.assertIn("1 session ended, and logins are no longer held", said)
        self.assertTrue(client.ended())
        self.assertEqual([self.host(each) for each in ("imap", "pop3")], [after] * 2)
        self.assertEqual(json.loads(self.command("where", JOE, "--json")[1])["holds"], [])
        # A reload keeps places.
        self.gateway.configure(self.text.replace("retain=1m", "retain=2m"))
        self.assertEqual(self.command("reload")[0], 0)
        self.assertEqual(self.host("imap"), after)

    def refused(self) -> None:
        """A backend of no sticky group is refused, with those that there are."""
        status, said = self.command("move", JOE, "127.0.0.9:143")
        self.assertEqual(status, REFUSED)
        self.assertIn("127.0.0.9:143 is in no sticky group: imap has", said)

    def gone(self) -> None:
        """The users of a host that is gone go to the other one, which is logged, and stay there when it is back."""
        before = self.host("imap")
        (after,) = {*HOSTS} - {before}
        for protocol in self.listening:
            self.backends[protocol, before].stop()
        self.assertEqual([self.host(each) for each in ("imap", "imap", "pop3")], [after] * 3)
        line = f"from backend {self.at('imap', before)}, which cannot be used, to backend {self.at('imap', after)}"
        self.assertEqual(self.gateway.log().count(line), 1, self.gateway.log())
        self.assertNotIn("places within", self.gateway.log())
