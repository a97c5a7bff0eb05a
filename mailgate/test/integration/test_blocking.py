"""
C{mailgate block}, C{unblock}, C{blocked}, C{hold}, C{release} and C{kick --block} with a running gateway with workers,
and what clients hear.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.adminclient import AdminClient, Place
from mailgate.cli.main import main
from mailgate.system.exitstatus import NOTHING_MATCHED
from mailgate.test.integration.attack import OWNER, Attacked
from mailgate.test.integration.daemon import slowness, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.guessers import LIMITED
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import Address

HERE, THERE = "127.20.1.7", "127.30.1.7"
ANN = "ann@example.com"
MORE = "limit_login_pair = delay=4 block=5\nlimit_login_delay = 10ms 20ms\nlimit_req = off\n"
"""No login waits for its turn, and a pair is blocked after five failures without minutes of delays."""


class BlockingTests(SynchronousTestCase):
    """One gateway with two workers."""

    def setUp(self) -> None:
        self.site = Attacked(MORE, workers=2)
        self.addCleanup(self.site.clear)
        self.pidFile = os.path.join(self.site.folder, "pid")
        self.site.start()
        self.addCleanup(self.stop)
        self.client = AdminClient(Place(f"{self.pidFile}.admin"), 20.0)

    def stop(self) -> None:
        """Stop the gateway, which has no traceback in its log."""
        try:
            self.site.gateway.stop()
        finally:
            self.site.gateway.forget()

    def command(self, *words: str) -> tuple[int, str]:
        """The exit status of a command, and what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main((*words, "--pid", self.pidFile, "--timeout", "20s"))
        return status, said.getvalue()

    def does(self, *words: str) -> str:
        """Run a command that succeeds; return what it says."""
        status, said = self.command(*words)
        self.assertEqual(status, 0, said)
        return said

    def hears(self, source: str, user: str = OWNER, password: str = PASSWORD) -> bytes:
        """The answer to a login."""
        return self.site.login(source, user, password)[0]

    def assertHears(self, expected: bytes | tuple[bytes, ...], source: str, user: str) -> None:
        """
        The client hears this from both workers: a new connection may reach either. They are told within a second, the
        one a moment before the other.
        """

        def hearsAlways() -> bool:
            return all(self.hears(source, user).startswith(expected) for _ in range(8))

        waitUntil(hearsAlways, f"{user} hears {expected!r}", slowness())

    def assertLetIn(self, source: str, user: str = OWNER) -> None:
        self.assertHears(b"OK", source, user)

    def assertKeptOut(self, source: str, user: str = OWNER) -> None:
        self.assertHears(LIMITED, source, user)

    def test_blocking(self) -> None:
        """What an operator blocks is kept out of both workers at once, and what is unblocked is let in at once."""
        self.networks()
        self.users()
        self.kicked()
        self.held()
        self.failures()
        self.seen()

    def networks(self) -> None:
        """Clients of a blocked network are turned away before they log in; others are not."""
        said = self.does("block", "127.20.0.0/16", "--for", "1h", "--reason", "abuse")
        self.assertRegex(said, r"^127\.20\.0\.0/16 is blocked until .* \(b\d+\): abuse$")
        self.assertKeptOut(HERE)
        self.assertLetIn(THERE)
        (row,) = json.loads(self.does("blocked", "--json"))["blocks"]
        self.assertEqual((row["thing"], row["rule"], row["reason"]), ("127.20.0.0/16", "block", "abuse"))
        self.assertIn("is no longer blocked", self.does("unblock", row["id"]))
        self.assertLetIn(HERE)
        self.assertEqual(self.command("unblock", row["id"])[0], NOTHING_MATCHED)
        self.assertEqual(self.command("blocked")[0], NOTHING_MATCHED)

    def users(self) -> None:
        """The logins of a blocked user are refused, however the name is spelled, and nothing is asked about them."""
        self.does("block", ANN, "--for", "1h")
        for spelled in (ANN, "Ann@Example.com", "ann+x@example.com"):
            self.assertKeptOut(THERE, spelled)
            self.assertEqual(self.site.auth.askedAbout(spelled), [])
        self.assertLetIn(THERE)
        status, said = self.command("explain", ANN, "--address", THERE, "--protocol", "imap")
        self.assertEqual(status, 0, said)
        self.assertIn("would      be refused by block", said)
        self.assertIn("known      no", said)
        self.does("unblock", ANN)
        self.assertLetIn(THERE, ANN)

    def kicked(self) -> None:
        """A kick with a block ends the session, and the client cannot come back."""
        session = RawClient(Address("imap", self.site.port, "none", ""))
        self.addCleanup(session.close)
        self.assertTrue(session.login(OWNER, PASSWORD).startswith(b"OK"))
        waitUntil(lambda: "relay" in self.command("sessions", "--user", OWNER)[1], "the session is listed")
        said = self.does("kick", OWNER, "--block", "1h", "--reason", "stolen")
        self.assertIn("1 session ended at g1", said)
        self.assertIn(f"{OWNER} is blocked until", said)
        self.assertTrue(session.ended())
        self.assertKeptOut(HERE)
        self.does("unblock", OWNER)
        self.assertLetIn(HERE)

    def held(self) -> None:
        """The login of a held user waits, and goes on when the user is released."""
        self.does("kick", OWNER, "--hold", "10m")
        answers: list[bytes] = []
        waiting = threading.Thread(target=lambda: answers.append(self.hears(HERE)), daemon=True)
        waiting.start()
        waitUntil(lambda: "auth" in self.command("sessions", "--user", OWNER)[1], "the login waits")
        self.assertEqual(answers, [])
        self.assertIn("is no longer held", self.does("release", OWNER))
        waiting.join(15.0)
        self.assertEqual([answer[:2] for answer in answers], [b"OK"])
        self.assertEqual(self.command("release", OWNER)[0], NOTHING_MATCHED)

    def failures(self) -> None:
        """What a rule has blocked is listed, and can log in at once when it is unblocked."""
        source, user = "127.40.1.7", "bob@example.com"
        answers = [self.hears(source, user, f"wrong{number}") for number in range(5)]
        self.assertEqual({answer[:10] for answer in answers}, {b"NO Invalid"}, answers)
        self.assertKeptOut(source, user)
        (row,) = json.loads(self.does("blocked", "--rule", "R2", "--json"))["blocks"]
        self.assertEqual(row["thing"], f"{user} {source}")
        shown = self.client.get("/api/1/users/bob%40example.com")
        self.assertEqual([each["id"] for each in shown["blocks"]], [row["id"]])
        self.assertEqual([each["address"] for each in shown["networks"]], [source])
        self.does("unblock", f"{user} {source}")
        self.assertLetIn(source, user)

    def isShown(self) -> bool:
        """Whether the workers have told the keeper what they have refused."""
        found: dict[str, Any] = self.client.get("/api/1/overview")
        reasons = {(each["outcome"], each["reason"]) for each in found["failures"]}
        return found["servers"][0]["refused"] >= 6 and {("blocked", "block"), ("blocked", "R2")} <= reasons

    def seen(self) -> None:
        """The page has what limits have refused, by their rules, and the log who has blocked what."""
        waitUntil(self.isShown, "the page has them")
        self.assertEqual(self.client.get("/api/1/overview")["blocks"], [])
        log = self.site.gateway.log()
        self.assertRegex(log, r'admin request POST /api/1/blocks by uid \d+.*thing "127\.20\.0\.0/16"')
        self.assertIn("R2", log)
