"""
Two gateways of two workers each that share a store: what an operator orders at one of them, and what a user does at one
of them, holds at the other within a second. The clock of the second gateway is wrong.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.keys import StoreKeys
from mailgate.system.exitstatus import NOTHING_MATCHED
from mailgate.test.integration.authservice import refuse
from mailgate.test.integration.clusterfaults import FAULTS, MUCH, Logins
from mailgate.test.integration.clustersite import SECRET, Cluster, Member
from mailgate.test.integration.daemon import slowness, waitUntil
from mailgate.test.integration.guessers import LIMITED, WRONG
from mailgate.test.integration.programs import require

SECOND = 1.0
"""Within that an order holds at all gateways of a machine that has nothing else to do."""

HERE = "127.50.1.7"
USERS = ("ann@example.com", "bob@example.com", "cleo@example.com", "dan@example.com", "eve@example.com")

MORE = f"""\
limit_login_pair = delay=4 block=5
limit_login_delay = 10ms 20ms
limit_conn =
    address 100
    user 3
    user_address 3
    server 1000
{MUCH}"""
"""No login waits for its turn; a pair is blocked after five failures; a user has three sessions."""


class ClusterTests(SynchronousTestCase):
    """One pair of gateways for all that two gateways do."""

    def setUp(self) -> None:
        require("redis-server")
        self.cluster = Cluster(MORE)
        self.addCleanup(self.cluster.clear)
        self.cluster.start()
        self.first, self.second = self.cluster.members

    def within(self, member: Member, user: str, expected: bytes | tuple[bytes, ...], source: str = HERE) -> None:
        """
        A login at C{member} that begins within a second hears this, and so do all later ones, at both workers. The
        answer itself may take longer: a refusal is held back.
        """
        ordered = time.monotonic()
        while True:
            began = time.monotonic()
            answer = member.login(user, source)
            if answer.startswith(expected):
                break
            self.assertLess(began - ordered, SECOND * slowness(), f"{user} hears {answer!r}, not {expected!r}")
            time.sleep(0.05)
        # Logins that succeed at the same time would be too many sessions of one user.
        with ThreadPoolExecutor(1 if expected == b"OK" else 4) as pool:
            answers = list(pool.map(lambda _: member.login(user, source), range(4)))
        self.assertTrue(all(answer.startswith(expected) for answer in answers), answers)

    def bothSeen(self, member: Member, user: str) -> bool:
        """Whether C{member} lists a session of the user at each gateway."""
        return member.sees(user) == ["g1", "g2"]

    def isLetIn(self, member: Member, user: str) -> bool:
        """Whether a login at C{member} succeeds."""
        return member.login(user, HERE).startswith(b"OK")

    def test_asOne(self) -> None:
        """What is done at one of them holds at both, as long as the store serves, and none is refused without it."""
        self.blocked()
        self.guessed()
        self.listed()
        self.limited()
        self.held()
        self.moved()
        self.kept()
        self.faults()
        for member in self.cluster.members:
            member.gateway.stop()

    def blocked(self) -> None:
        """A block at one, and its end at the other."""
        ann, bob, *_ = USERS
        self.first.does("block", ann, "--for", "1h", "--reason", "abuse")
        self.within(self.second, ann, LIMITED)
        self.within(self.second, bob, b"OK")
        (row,) = self.second.answers("blocked")["blocks"]
        self.assertEqual((row["thing"], row["reason"], row["id"][:3]), (ann, "abuse", "g1."))
        self.second.does("unblock", ann)
        self.within(self.first, ann, b"OK")
        self.within(self.second, ann, b"OK")

    def guessed(self) -> None:
        """Failures of a pair add up: after five, by turns, it is blocked at both, and can be let in at either."""
        user, source = "guessed@example.com", "127.60.1.7"
        # It refuses at once, unlike other wrong passwords.
        self.cluster.auth.manners[user] = refuse
        for number in range(5):
            member = self.cluster.members[number % 2]
            self.assertTrue(member.login(user, source, f"wrong{number}").startswith(WRONG))
        self.within(self.first, user, LIMITED, source)
        self.within(self.second, user, LIMITED, source)
        self.assertIn("pair", self.second.does("explain", user, "--address", source, "--protocol", "imap"))
        self.second.does("unblock", user)
        del self.cluster.auth.manners[user]
        self.within(self.first, user, b"OK", source)

    def listed(self) -> None:
        """Sessions of both are listed at both, and a kick at one ends all of them."""
        _, bob, *_ = USERS
        sessions = [member.session(bob) for member in self.cluster.members]
        for session in sessions:
            self.addCleanup(session.close)
        for member in self.cluster.members:
            waitUntil(partial(self.bothSeen, member, bob), "both sessions are listed")
            found = member.answers("sessions", "--user", bob)
            self.assertEqual({each["name"]: each["complete"] for each in found["gateways"]}, {"g1": True, "g2": True})
        began = time.monotonic()
        kicked = self.second.answers("kick", bob, "--reason", "password changed")
        self.assertEqual(kicked["ended"], 2)
        self.assertEqual({each["name"]: each["ended"] for each in kicked["gateways"]}, {"g1": 1, "g2": 1})
        self.assertEqual(kicked["unanswered"], [])
        for session in sessions:
            self.assertTrue(session.ended())
        self.assertLess(time.monotonic() - began, (SECOND + 1.0) * slowness())
        self.assertEqual(self.first.command("kick", bob)[0], NOTHING_MATCHED)

    def limited(self) -> None:
        """The sessions of a user at both count together, and no longer when they have ended."""
        _, _, cleo, *_ = USERS
        sessions = [self.first.session(cleo), self.first.session(cleo), self.second.session(cleo)]
        for member in self.cluster.members:
            self.within(member, cleo, b"NO [LIMIT]")
        for session in sessions:
            session.close()
        for member in self.cluster.members:
            waitUntil(partial(self.isLetIn, member, cleo), "there is room again", 2.0 * slowness())

    def held(self) -> None:
        """The login of a user who is held at one waits at the other, and goes on when he is released there."""
        *_, dan, _ = USERS
        self.first.does("hold", dan, "--for", "10m")
        waitUntil(lambda: dan in self.second.command("blocked")[1], "the other holds him, too", SECOND * slowness())
        answers: list[bytes] = []
        waiting = threading.Thread(target=lambda: answers.append(self.second.login(dan, HERE)), daemon=True)
        waiting.start()
        listed = ("sessions", "--user", dan)
        waitUntil(lambda: "auth" in self.first.command(*listed)[1], "the login waits, which the other lists")
        self.assertEqual(answers, [])
        self.second.does("release", dan)
        waiting.join(15.0)
        self.assertEqual([answer[:2] for answer in answers], [b"OK"])
        self.within(self.first, dan, b"OK")

    def moved(self) -> None:
        """A user has one place for both, and another one for both after a move at either."""
        *_, eve = USERS
        self.cluster.placed(eve)
        sessions = [member.session(eve) for member in self.cluster.members]
        place = self.cluster.backendOf(eve)
        there = self.cluster.backends[1 - place]
        where = [member.does("where", eve) for member in self.cluster.members]
        self.assertTrue(all(f":{self.cluster.backends[place].port}" in said for said in where), where)
        for backend in self.cluster.backends:
            backend.rewind()
        self.second.does("move", eve, f"127.0.0.1:{there.port}", "--when-quiet")
        for session in sessions:
            self.assertTrue(session.ended())
        for member in self.cluster.members:
            self.within(member, eve, b"OK")
        self.assertEqual(self.cluster.backendOf(eve), 1 - place)

    def kept(self) -> None:
        """Every key of the store has an end, is of a known kind, and names no person, and nor do values."""
        asking = self.cluster.store.commands()
        self.addCleanup(asking.close)
        keys = asking("KEYS", "*")
        self.assertGreater(len(keys), 5)
        self.assertEqual([key for key in keys if not key.startswith(b"mg:1:")], [])
        self.assertEqual([key for key in keys if asking("TTL", key) == -1], [])
        everything = b"\n".join([*keys, *(asking("DUMP", key) or b"" for key in keys)])
        names = [*USERS, "guessed", "example.com", "password changed", "abuse", HERE, "127.60.1"]
        self.assertEqual([name for name in names if name.encode() in everything], [])
        self.assertNotIn(StoreKeys(SECRET.encode()).derived(b"seal"), everything)

    def faults(self) -> None:
        """
        While logins go on the store hangs, dies, and comes back empty. None is refused, the store is used again, and
        one warning says that it was not. L{mailgate.test.integration.clusterfaults} has all faults.
        """
        ann, *_ = USERS
        with Logins(self.cluster, rate=20.0) as logins:
            course = logins.during(self.hangAndDie, 20)
            waitUntil(lambda: all(map(Member.isStoreUp, self.cluster.members)), "the store is used again", 30.0)
        self.assertEqual(course.refused, [])
        for member in self.cluster.members:
            said = member.gateway.log()
            self.assertEqual(said.count("goes on with what it knows itself"), 1)
            self.assertEqual(said.count("works again"), 1)
        self.first.does("block", ann, "--for", "1h")
        self.within(self.second, ann, LIMITED)

    def hangAndDie(self) -> None:
        """The store hangs until neither uses it, and then begins anew."""
        with FAULTS["hung"](self.cluster):
            waitUntil(lambda: not any(map(Member.isStoreUp, self.cluster.members)), "the store is left alone")
            with FAULTS["restarted empty"](self.cluster):
                pass
