"""
The recorded conversations sound as they did when they were recorded.
"""

from __future__ import annotations

import os
import select
import ssl
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.differential.compare import differences, report
from mailgate.test.differential.generate import scripts
from mailgate.test.differential.recorded import FILE, play, recorded
from mailgate.test.differential.script import Backend, Script
from mailgate.test.differential.trees import HERE

# The bytes depend on what epoll and OpenSSL 3 do.
if not os.path.exists(FILE):
    UNAVAILABLE = "the recorded conversations are not installed"
elif not hasattr(select, "epoll") or ssl.OPENSSL_VERSION_INFO < (3,):
    UNAVAILABLE = "the conversations were recorded with epoll and OpenSSL 3"
else:
    UNAVAILABLE = ""


class RecordedTests(SynchronousTestCase):
    """All bytes, the ends of connections and log lines."""

    if UNAVAILABLE:
        skip = UNAVAILABLE

    def test_same(self) -> None:
        """Each conversation has its recorded transcript."""
        known = list(recorded())
        self.assertGreater(len(known), 200)
        transcripts = play(HERE, [script for script, _ in known])
        # The system may give one port to two connections, which makes their names ambiguous. That is rare.
        again = [script for script, before in known if any(differences(before, transcripts[script.name]))]
        transcripts.update(play(HERE, again))
        reports = []
        for script, before in known:
            if found := list(differences(before, transcripts[script.name])):
                reports.append(report(script, found))
        self.assertEqual(reports, [], f"{len(reports)} conversations differ:\n" + "\n".join(reports[:10]))

    def test_written(self) -> None:
        """What is recorded has no name of a local folder, and all kinds of ends."""
        texts = [str(transcript) for _, transcript in recorded()]
        everything = "".join(texts)
        for word in ("logged in", "login failed", "backend failed", "auth service failed", "!reset", "!TLS", "resumed"):
            self.assertIn(word, everything)
        self.assertNotIn("/tmp", everything)
        self.assertNotIn("'error'", everything)


class RefusedTests(SynchronousTestCase):
    """Conversations that a tree is too old for."""

    if UNAVAILABLE:
        skip = UNAVAILABLE

    def test_refused(self) -> None:
        """A configuration that the gateway refuses is named; it stops no other conversation, and is a difference."""
        first, second = (
            Script(name, "pop3", [["connect"]], backends=[Backend()], options=[*options, "proxy_pass = 192.0.2.1:110"])
            for name, options in (("unknown", ["later = on"]), ("known", []))
        )
        transcripts = play(HERE, [first, second])
        self.assertIn("[server it] later: ", transcripts["unknown"]["refused"])
        self.assertEqual(transcripts["known"]["steps"][0]["client1"], [">+OK POP3 ready\r\n"])
        ((_, what, _, _),) = differences({"name": "unknown", "steps": []}, transcripts["unknown"])
        self.assertEqual(what, "refused")


class ScriptTests(SynchronousTestCase):
    """L{Script} and the generator."""

    def test_json(self) -> None:
        """A script survives JSON."""
        for script in scripts(3, 50):
            self.assertEqual(Script.fromJSON(script.toJSON()), script)
        short = Script("a", "imap", [["connect"]], backends=[Backend()])
        self.assertEqual(Script.fromJSON(short.toJSON()), short)

    def test_repeatable(self) -> None:
        """The same seed makes the same conversations, whatever was made before."""
        Random(1).random()
        self.assertEqual(list(scripts(4, 9))[5:], list(scripts(4, 9))[5:])
        self.assertNotEqual(list(scripts(4, 9)), list(scripts(5, 9)))

    def test_differences(self) -> None:
        """A byte, an event and a log line that differ are found."""
        script = Script("a", "imap", [["connect"], ["send", "x"]])
        before = {"name": "a", "steps": [{"client1": [">* OK\r\n"]}, {"client1": ["!end"], "log": ["info: x"]}, {}]}
        after = {"name": "a", "steps": [{"client1": [">* Ok\r\n"]}, {"client1": ["!reset"], "log": ["info: y"]}, {}]}
        self.assertEqual(list(differences(before, before)), [])
        found = list(differences(before, after))
        self.assertEqual([(number, wire) for number, wire, _, _ in found], [(0, "client1"), (1, "client1"), (1, "log")])
        self.assertIn("step 1", report(script, found))
