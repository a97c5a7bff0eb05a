"""
Tests for L{mailgate.keeper.admin.resources}: what each endpoint asks the keeper.
"""

from __future__ import annotations

import inspect
import json
import os
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

import mailgate
from mailgate.keeper.admin.endpoints import ENDPOINTS
from mailgate.keeper.keeper import Collected
from mailgate.keeper.kick import kick
from mailgate.keeper.moves import WAIT, Order
from mailgate.keeper.moves import Refusal as NotMoved
from mailgate.process.answer import Answer
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.adminsite import SESSION, TOKENS, Answered
from mailgate.test.support.limitstore import StandInLimits

BY = f"uid {os.geteuid()}, pid {os.getpid()}"


class IndexTests(AdminCase):
    """C{/api/1/}."""

    def test_index(self) -> None:
        """It lists all endpoints, with the release and the gateway."""
        found = self.ask("GET", "/api/1/").value
        self.assertEqual((found["version"], found["gateway"]), (mailgate.__version__, "g1"))
        self.assertEqual(
            [(each["method"], each["path"], each["level"]) for each in found["endpoints"]],
            [(each.method, each.path, each.level.word) for each in ENDPOINTS],
        )

    def test_stats(self) -> None:
        """Stats are the keeper's."""
        self.assertEqual(self.ask("GET", "/api/1/stats").value, {"users": 3})
        self.assertEqual(self.stands.calls, [("stats",)])


class SessionTests(AdminCase):
    """Sessions and users."""

    def test_list(self) -> None:
        """The query is the filter. A plus sign is a plus sign, as in RFC 3986."""
        answered = self.ask(
            "GET",
            "/api/1/sessions?user=j*+a%40b&address=192.0.2.0/24&backend=10.0.0.1:143&protocol=imap&server=imaps"
            "&phase=relay&id=a.1&older=60&stuck=1.5&limit=7&cursor=x",
        )
        self.assertEqual(answered.value, self.stands.results["listSessions"])
        expected = {
            "user": "j*+a@b",
            "address": "192.0.2.0/24",
            "backend": "10.0.0.1:143",
            "protocol": "imap",
            "server": "imaps",
            "phase": "relay",
            "id": "a.1",
            "older": 60,
            "stuck": 1.5,
        }
        self.assertEqual(self.stands.calls, [("listSessions", expected, 7, "x")])
        self.ask("GET", "/api/1/sessions")
        self.assertEqual(self.stands.calls[1:], [("listSessions", {}, 500, None)])

    def test_count(self) -> None:
        """With C{by} the sessions are counted. All groups are in one answer."""
        answered = self.ask("GET", "/api/1/sessions?by=user&phase=relay&limit=7")
        self.assertEqual(answered.value, self.stands.results["countSessions"])
        self.assertEqual(self.stands.calls, [("countSessions", {"phase": "relay"}, "user", 7)])
        self.assertEqual(self.ask("GET", "/api/1/sessions?by=user&cursor=x").status, 400)
        self.assertEqual(len(self.stands.calls), 1)

    def test_notValid(self) -> None:
        """A ValueError is a mistake of the client."""
        self.stands.results["listSessions"] = ValueError("address must be an address or a network")
        answered = self.ask("GET", "/api/1/sessions?address=x")
        self.assertEqual((answered.status, answered.detail), (400, "address must be an address or a network"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_one(self) -> None:
        """A session has its own path; the status is 404 when it has ended."""
        self.assertEqual(self.ask("GET", "/api/1/sessions/5g0qa.7k").value, SESSION)
        self.assertEqual(self.stands.calls, [("listSessions", {"id": "5g0qa.7k"}, 1, None)])
        self.stands.results["listSessions"] = {"sessions": []}
        self.assertEqual(self.ask("GET", "/api/1/sessions/5g0qa.7k").status, 404)

    def test_end(self) -> None:
        """DELETE ends a session, with or without a reason; the status is 404 when it has ended."""
        self.assertEqual(self.ask("DELETE", "/api/1/sessions/5g0qa.7k").value, self.stands.results["kick"])
        self.ask("DELETE", "/api/1/sessions/5g0qa.7k", body=b'{"reason": "abuse"}')
        chosen = {"id": "5g0qa.7k"}
        self.assertEqual(
            self.stands.calls,
            [("kick", chosen, "", BY, 0, False, False, 0, 0), ("kick", chosen, "abuse", BY, 0, False, False, 0, 0)],
        )
        self.stands.results["kick"] = {"ended": 0, "gateways": [], "unanswered": []}
        self.assertEqual(self.ask("DELETE", "/api/1/sessions/5g0qa.7k").status, 404)
        self.stands.results["kick"] = {"ended": 0, "gateways": [], "unanswered": ["process 7 did not answer"]}
        self.assertEqual(self.ask("DELETE", "/api/1/sessions/5g0qa.7k").status, 200)

    def test_user(self) -> None:
        """A user's name may contain any character."""
        found = self.ask("GET", "/api/1/users/j%2Foe%2A%5B%3F").value
        self.assertEqual(found, self.stands.results["showUser"])
        self.assertEqual(self.stands.calls, [("showUser", "j/oe*[?")])


class KickTests(AdminCase):
    """C{/api/1/kick} and C{/api/1/explain}."""

    def test_kick(self) -> None:
        """The object is the filter, and what goes with it; the caller is known. Null is as good as nothing."""
        body = (
            b'{"user": "joe", "reason": "password changed", "over": 60, "dry_run": true, "block": 0, "address": null}'
        )
        answered = self.ask("POST", "/api/1/kick", body=body, token="operate")
        self.assertEqual(answered.value["ended"], 1)
        by = "token o, client 192.0.2.7:40000"
        self.assertEqual(self.stands.calls, [("kick", {"user": "joe"}, "password changed", by, 60, True, False, 0, 0)])

    def test_all(self) -> None:
        """All sessions end only if the request says so."""
        self.stands.results["kick"] = lambda *arguments: kick(self.keeper, *arguments[1:])
        self.keeper.found["kick"] = Collected([3])
        for body in (b"", b"{}", b'{"user": "*"}', b'{"user": "**"}', b'{"all": false}', b'{"reason": "x"}'):
            answered = self.ask("POST", "/api/1/kick", body=body)
            self.assertEqual((answered.status, answered.value["title"]), (400, "bad request"))
            self.assertEqual(answered.detail, "the filter means all sessions; set all to true if they are to end")
        self.assertEqual(self.keeper.asked, [])
        self.assertEqual(self.ask("POST", "/api/1/kick", body=b'{"all": true}').value["ended"], 3)
        self.assertEqual(self.ask("POST", "/api/1/kick", body=b'{"user": "*", "protocol": "imap"}').value["ended"], 3)

    def test_explain(self) -> None:
        """explain needs a user."""
        self.ask("POST", "/api/1/explain", body=b'{"user": "joe", "address": "192.0.2.7", "protocol": "imap"}')
        self.ask("POST", "/api/1/explain", body=b'{"user": "joe"}')
        self.assertEqual(self.stands.calls, [("explain", "joe", "192.0.2.7", "imap"), ("explain", "joe", None, None)])
        self.assertEqual(self.ask("POST", "/api/1/explain").detail, "user is missing")


class OrderTests(AdminCase):
    """Orders for the gateway."""

    def test_backends(self) -> None:
        """Each order is that of the command line."""
        row = {"address": "10.0.0.1:143", "state": "drain"}
        self.operator.answer = Answer(True, ("process 7 did not answer",), rows=(row,))
        for word in ("drain", "resume", "down", "up"):
            answered = self.ask("POST", f"/api/1/backends/10.0.0.1:143/{word}", token="admin")
            self.assertEqual(answered.value, {"backends": [row], "missing": ["process 7 did not answer"]})
        self.assertEqual(
            self.operator.orders,
            [(f"backend {word}", {"address": "10.0.0.1:143"}) for word in ("drain", "resume", "down", "up")],
        )

    def test_socket(self) -> None:
        """The address of a backend may be the path of a unix socket, or of IPv6."""
        for path, address in (("unix%3A%2Frun%2Fx", "unix:/run/x"), ("[::1]:143", "[::1]:143")):
            self.ask("POST", f"/api/1/backends/{path}/up")
            self.assertEqual(self.operator.orders.pop(), ("backend up", {"address": address}))
        self.assertEqual(self.ask("POST", "/api/1/backends/a%0Ab/up").status, 400)
        self.assertEqual(self.ask("POST", "/api/1/backends//up").status, 404)
        self.assertEqual(self.operator.orders, [])

    def test_refused(self) -> None:
        """An unknown address has the status 404, an order that is refused 409."""
        self.operator.answer = Answer(False, ("no server has the address x; servers: y",), isUnknown=True)
        answered = self.ask("POST", "/api/1/backends/x/drain")
        self.assertEqual((answered.status, answered.detail), (404, "no server has the address x; servers: y"))
        self.operator.answer = Answer(False, ("backend drain refused: process 7 has taken over",))
        answered = self.ask("POST", "/api/1/backends/x/drain")
        self.assertEqual((answered.status, answered.detail), (409, "backend drain refused: process 7 has taken over"))

    def test_reload(self) -> None:
        """A reload that is refused has the status 409 and all reasons."""
        self.assertEqual(self.ask("POST", "/api/1/reload").value, {"reloaded": True})
        self.operator.answer = Answer(False, ("gateway.ini:3: a", "gateway.ini:7: b"))
        answered = self.ask("POST", "/api/1/reload")
        self.assertEqual(answered.status, 409)
        self.assertEqual(answered.value["title"], "reload refused")
        self.assertEqual(answered.value["reasons"], ["gateway.ini:3: a", "gateway.ini:7: b"])

    def test_application(self) -> None:
        """A gateway in an application takes no orders."""
        self.keeper.operator = None
        self.assertEqual(self.ask("POST", "/api/1/reload").status, 501)


class StandInTests(AdminCase):
    """The stand-ins of these tests."""

    def test_keeper(self) -> None:
        """They have the signatures of what they stand for."""
        base = type(self.keeper).__mro__[1]
        for name in ("ask", "scrape", "recent"):
            parameters = inspect.signature(getattr(base, name)).parameters
            self.assertEqual(list(parameters), list(inspect.signature(getattr(type(self.keeper), name)).parameters))
        self.assertEqual(len(TOKENS), 3)


class BlockTests(AdminCase):
    """Blocks and holds."""

    def setUp(self) -> None:
        super().setUp()
        self.keeper.limits = self.limits = StandInLimits()

    def post(self, path: str, **body: object) -> Answered:
        return self.ask("POST", path, body=json.dumps(body).encode())

    def test_blocks(self) -> None:
        """A block is made, listed and ended."""
        made = self.post("/api/1/blocks", thing="198.51.100.0/24", **{"for": 7200, "reason": "abuse"})
        self.assertEqual((made.status, made.value["thing"], made.value["reason"]), (200, "198.51.100.0/24", "abuse"))
        self.assertEqual(made.value["until"], "2027-01-15T10:00:00Z")
        listed = self.ask("GET", "/api/1/blocks")
        self.assertEqual(listed.value, {"blocks": [made.value], "total": 1})
        self.assertEqual(self.ask("GET", "/api/1/blocks?rule=R4").value, {"blocks": [], "total": 0})
        ended = self.ask("DELETE", f"/api/1/blocks/{made.value['id']}")
        self.assertEqual(ended.value, {"ended": [made.value]})
        again = self.ask("DELETE", "/api/1/blocks/198.51.100.0%2F24")
        self.assertEqual((again.status, again.detail), (404, "nothing was blocked; failures were forgotten"))
        self.assertEqual(self.limits.forgotten, ["b1", "198.51.100.0/24"])

    def test_mistakes(self) -> None:
        """What is missing or not valid is refused."""
        for body, detail in (
            ({"thing": "joe"}, "for is missing"),
            ({"for": 60}, "thing is missing"),
            ({"thing": "bad", "for": 60}, "bad is no user, address or network"),
            ({"thing": "joe", "for": 0}, "a block must last more than 0 and at most 31622400 seconds"),
        ):
            answered = self.post("/api/1/blocks", **body)
            self.assertEqual((answered.status, answered.detail), (400, detail))
        self.assertEqual(self.ask("GET", "/api/1/blocks?rule=R9").status, 400)
        self.assertEqual(self.limits.held, [])

    def test_holds(self) -> None:
        """The logins of a user are held and released, by the level admin; his name may have any sign."""
        path = "/api/1/users/joe%2Bx%40example.org"
        held = self.post(f"{path}/hold", **{"for": 600})
        self.assertEqual((held.value["thing"], held.value["rule"]), ("joe+x@example.org", "hold"))
        for word in ("hold", "release"):
            refused = self.ask("POST", f"{path}/{word}", token="operate", body=b'{"for": 600}')
            self.assertEqual(refused.status, 403)
        self.limits.held[:] = []
        released = self.post(f"{path}/release")
        self.assertEqual((released.status, released.detail), (404, "this user is not held"))

    def test_released(self) -> None:
        """A release answers with what has ended."""
        held = self.post("/api/1/users/joe/hold", **{"for": 600}).value
        self.assertEqual(self.post("/api/1/users/joe/release").value, {"ended": [held]})

    def test_none(self) -> None:
        """A gateway without limits says so."""
        self.keeper.limits = None
        for answered in (self.ask("GET", "/api/1/blocks"), self.post("/api/1/blocks", thing="joe", **{"for": 60})):
            self.assertEqual(answered.status, 501)
            self.assertIn("has no limits", answered.detail)

    def test_logged(self) -> None:
        """Who has blocked what is logged."""
        logged: list[str] = []
        observer: Any = lambda event: logged.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.post("/api/1/blocks", thing="joe", **{"for": 60})
        (line,) = [each for each in logged if "admin request" in each]
        self.assertIn("POST /api/1/blocks by uid", line)
        self.assertIn('thing "joe", for "60"', line)


class MoveTests(AdminCase):
    """Moves of users."""

    path = "/api/1/users/joe%2Fx/move"

    def test_move(self) -> None:
        """The order, and who gives it."""
        answered = self.ask("POST", self.path, body=b'{"backend": "a:143"}')
        self.assertEqual(answered.value, {"state": "moved"})
        more = {"backend": "a:143", "group": "g", "when_quiet": True, "for": 90}
        self.ask("POST", self.path, body=json.dumps(more).encode())
        self.assertEqual(
            self.stands.calls,
            [
                ("move", Order("joe/x", "a:143", None, BY), False, WAIT),
                ("move", Order("joe/x", "a:143", "g", BY), True, 90),
            ],
        )

    def test_follow(self) -> None:
        """How far a move is."""
        answered = self.ask("GET", "/api/1/users/joe%2Fx/moves/0f3c")
        self.assertEqual(answered.value, {"state": "waiting"})
        self.assertEqual(self.stands.calls, [("follow", "joe/x", "0f3c")])
        self.stands.results["follow"] = KeyError("0f3c")
        answered = self.ask("GET", "/api/1/users/joe%2Fx/moves/0f3c")
        self.assertEqual(answered.status, 404)
        self.assertIn("there is no such move", answered.detail)

    def test_refused(self) -> None:
        """Why not, and what was done before; mistakes; and the level."""
        self.stands.results["move"] = NotMoved("it takes too long", ["his logins were held", "the hold has ended"])
        answered = self.ask("POST", self.path, body=b'{"backend": "a:143"}')
        said = "it takes too long; before that: his logins were held, the hold has ended"
        self.assertEqual((answered.status, answered.detail), (409, said))
        self.assertEqual(answered.value["done"], ["his logins were held", "the hold has ended"])
        self.stands.results["move"] = ValueError("for must be more than 0")
        self.assertEqual(self.ask("POST", self.path, body=b'{"backend": "a:143"}').status, 400)
        self.assertEqual(self.ask("POST", self.path, body=b"{}").status, 400)
        self.assertEqual(self.ask("POST", self.path, token="operate", body=b'{"backend": "a:143"}').status, 403)
        self.assertEqual(self.flushLoggedErrors(), [])
