"""
Backends that fail before a running gateway, whose clients do not notice.
"""

from __future__ import annotations

import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.fakebackend import DROPS_AT_LOGIN, DROPS_AT_ONCE, GARBLED, SILENT, FakeBackend
from mailgate.test.integration.groupsite import FOR_LONG, GroupSite, namedBackend
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.together import together

testSuite = together(__name__)

FAILING = {
    "hangs": (SILENT, "timed out after 2 s, in phase backend-login"),
    "drops": (DROPS_AT_ONCE, "the connection, in phase backend-login"),
    "garbled": (GARBLED, "greets with an invalid reply"),
    "full": ((b"* BYE too many connections\r\n",), "greets with BYE"),
    "closes": (DROPS_AT_LOGIN["imap"], "the connection, in phase backend-login"),
}
"""What a server says, and what the log says of it."""


class Site(GroupSite):
    """
    A group for each way to fail, whose first server fails so, and two servers that are alone.

    @ivar failing: the servers that fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing = {name: FakeBackend(says) for name, (says, _) in FAILING.items()}
        self.group("unavailable", [f"A {FOR_LONG}", "B backup"])
        self.backends["unavailable", "A"].script({"LOGIN": "TAG NO [UNAVAILABLE] later"})
        self.group("later", [f"A {FOR_LONG}"], "proxy_login_timeout = 20s\n")
        self.backends["later", "A"].script({"LOGIN": "TAG NO [UNAVAILABLE] later"})
        self.failing |= {name: FakeBackend(DROPS_AT_ONCE) for name in ("alone", "left")}
        self.serving = namedBackend("B")
        for name, backend in self.failing.items():
            line = f"    127.0.0.1:{backend.port} {FOR_LONG}\n"
            if name in FAILING:
                line += f"    127.0.0.1:{self.serving.port} backup\n"
            times = "proxy_connect_timeout = 2s\nproxy_login_timeout = 20s\n"
            self.section(f"upstream {name}", f"server =\n{line}{times}")
            self.server(name, f"proxy_pass = {name}")

    def stop(self) -> None:
        """End all."""
        super().stop()
        self.serving.stop()
        for backend in self.failing.values():
            backend.stop()


class FurtherTriesTests(SynchronousTestCase):
    """Logins at backends of which one fails, or at one that is alone."""

    def setUp(self) -> None:
        self.site: Site = shared("further tries", lambda: Site().start())  # type: ignore[assignment]

    def failures(self, port: int) -> list[str]:
        """The lines about the backend at C{port}."""
        lines = self.site.gateway.log().splitlines()
        return [line for line in lines if "backend failed" in line and f":{port} " in line]

    def test_next(self) -> None:
        """The next server serves; the log has a warning with the reason."""
        for name, (_, reason) in FAILING.items():
            answer, client = self.site.login(name)
            self.assertEqual(answer, "B", name)
            client.close()
            (line,) = self.failures(self.site.failing[name].port)
            self.assertIn("[warn]", line)
            self.assertIn(reason, line)

    def test_refusedForNow(self) -> None:
        """So it does after a temporary refusal of the login; the server that refused does not rest."""
        for _ in range(2):
            answer, client = self.site.login("unavailable")
            self.assertEqual(answer, "B")
            client.close()
        (first, second) = self.failures(self.site.backends["unavailable", "A"].port)
        for line in (first, second):
            self.assertIn("[warn]", line)
            self.assertIn("refused the login with NO [UNAVAILABLE]", line)

    def test_alone(self) -> None:
        """One that is alone and is restarted meanwhile serves the login that found it down."""
        failing = self.site.failing["alone"]
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(self.site.login("alone")[0]))
        thread.start()
        self.addCleanup(thread.join)
        waitUntil(lambda: failing._connections, "the first attempt")
        failing.stop()
        serving = namedBackend("A", port=failing.port)
        self.addCleanup(serving.stop)
        thread.join()
        self.assertEqual(answers, ["A"])

    def test_aloneRefusesForNow(self) -> None:
        """One that is alone and refuses the login for now is asked again, and the client hears its last answer only."""
        backend = self.site.backends["later", "A"]
        client = RawClient(self.site.at("later"))
        self.addCleanup(client.close)
        client.send(b"a LOGIN alice wonderland\r\nb NOOP\r\n")
        waitUntil(lambda: any(b" LOGIN " in heard for heard in backend.heard), "the first attempt")
        backend.reply({"LOGIN": "TAG OK this is A"})
        self.assertEqual(client.line(), b"a OK this is A\r\n")
        self.assertEqual(client.line(), b"b OK backend\r\n")

    def test_left(self) -> None:
        """A client may leave while its login waits for the next attempt."""
        failing = self.site.failing["left"]
        client = RawClient(self.site.at("left"))
        begun = time.monotonic()
        client.send(b"a LOGIN carol wonderland\r\n")
        waitUntil(lambda: failing._connections, "the first attempt")
        client.close()
        ended = "outcome client left"
        waitUntil(lambda: any(ended in line and "carol" in line for line in self.lines()), "the session ends")
        if time.monotonic() - begun < 0.9:
            self.assertEqual(len(failing._connections), 1)

    def lines(self) -> list[str]:
        """What the gateway has logged."""
        return self.site.gateway.log().splitlines()
