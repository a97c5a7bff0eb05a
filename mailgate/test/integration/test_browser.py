# -*- test-case-name: mailgate.test.integration.test_browser -*-
"""
The live page in a real browser, with a real gateway.

Every test also says that the console has no error, that the policy of the page refused nothing, and that no request
left the gateway.
"""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mailgate.test.integration.authservice import Answer
from mailgate.test.integration.browser import BrowserTestCase
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.livepage import LivePageTestCase
from mailgate.test.integration.pagesite import TOKENS
from mailgate.test.integration.webdriver import ENTER, ESCAPE, SPACE

_MARKUP = "<img src=x onerror='window.pwned=1'>"
HOSTILE = (
    _MARKUP,
    f"\u202e{'x' * 300}",
    "</td><script>window.pwned=2</script>\u2066\u200f evil",
    "\u05d0\u05d1\u05d2@\u0645",
)
"""User names: markup, marks that turn the direction of text, one that is very long, and letters from right to left."""

_ORDERED = """
return [...new Set([...document.querySelectorAll('#backends tbody tr')]
    .filter(row => [...row.querySelectorAll('button')].some(each => each.checkVisibility()))
    .map(row => [...row.cells].map(each => each.textContent).find(each => ['store', '-'].includes(each))))]
"""
"""The groups whose servers take orders."""

WIDTHS = (360, 1280, 2560)


def _after(event: threading.Event) -> Answer:
    """A refusal, once the event is set."""
    event.wait(60)
    return Answer({"Auth-Status": "Invalid login or password"})


class LivePageTests(LivePageTestCase):
    """The page."""

    def test_page(self) -> None:
        """
        What the methods below say. They are one test, because with C{-j} each test of a module would start a browser
        and a gateway; and most of them use the page as the one before has left it.
        """
        for part in (
            self.token,
            self.news,
            self.kick,
            self.explanation,
            self.blocking,
            self.keyboard,
            self.pause,
            self.interruptions,
            self.levels,
            self.maintenance,
            self.polling,
            self.hostile,
            self.plain,
        ):
            part()
            self.assertEqual(self.browser.faults(self.origin), [], part.__name__)
            self.browser.allowed.clear()

    def token(self) -> None:
        """The token is asked for once, and is in memory alone. A wrong one is refused with a reason."""
        self.browser.allowed.add("401")
        self.browser.go(f"{self.origin}/")
        self.browser.wait("document.querySelector('#access').open")
        self.browser.press(*"wrong" * 5, ENTER)
        self.seesText("#access .problem", "token")
        self.browser.press(*TOKENS["operate"], ENTER)
        self.browser.wait("document.querySelector('#numbers dd')")
        self.assertFalse(self.browser.run("return document.querySelector('#access').open"))
        self.assertEqual(self.browser.cookies(), [])
        kept = self.browser.run(
            "return Promise.all([indexedDB.databases(), caches.keys()]).then(([bases, stores]) =>"
            " [localStorage.length, sessionStorage.length, bases.length, stores.length, window.name, history.state])"
        )
        self.assertEqual(kept, [0, 0, 0, 0, "", None])
        page = "return location.href + document.documentElement.outerHTML +"
        page += " [...document.querySelectorAll('input')].map(each => each.value).join()"
        self.assertNotIn(TOKENS["operate"], self.browser.run(page))
        requested = list(self.browser.requests())
        self.assertTrue(any(url.endswith("/api/1/events") for url in requested), requested)
        self.assertFalse([url for url in requested if TOKENS["operate"] in url])
        self.browser.run("window.stays = true")

    def news(self) -> None:
        """
        A login, a logout, a failed login, a backend that is lost, an order of another operator, and a reload that is
        refused: each is seen within two seconds.
        """
        self.seesNumber("Sessions", "0", within=20)
        with self.sessionOf("ann"):
            self.seesNumber("Sessions", "1")
            self.seesRow("sessions", "ann", "imap", "relay")
        self.seesNumber("Sessions", "0")
        self.lacksRow("sessions", "ann")
        self.site.login("bob", "wrong").close()
        self.seesRow("failures", "bob", "denied")

        self.site.lose("A")
        waitUntil(self.isMissed, "a login finds it out")
        self.seesText("#alarms", self.site.at("A"))
        self.seesRow("backends", self.site.at("A"), "resting")
        self.site.find("A")

        self.site.ask(f"backends/{self.site.at('B')}/drain", {})
        self.seesRow("backends", self.site.at("B"), "drain")
        self.site.ask(f"backends/{self.site.at('B')}/resume", {})
        self.seesRow("backends", self.site.at("B"), "up")

        self.site.reload("timeout = soon")
        self.seesText("body", "timeout = soon")
        # A keeper that hands over ends the stream of events, in the worst case by a reset; the page opens another one.
        self.browser.allowed.add("/api/1/events - Failed to load resource: net::ERR_")
        self.site.reload()
        # What is announced to screen readers stays until the next announcement.
        shown = "[...document.querySelectorAll('#facts, #alarms')].map(each => each.innerText).join()"
        self.sees(f"!{shown}.includes('timeout = soon')", within=20)
        waitUntil(self.isUsed, "the lost backend is used again")
        self.seesRow("backends", self.site.at("A"), "up")
        self.sees("!document.querySelector('#alarms').checkVisibility()")

    def isMissed(self) -> bool:
        """Whether the gateway knows that the server A is lost; logins find it out, not always the first."""
        return not self.isUsed()

    def isUsed(self) -> bool:
        """Whether the gateway says that it uses the server A, which a login may have to try before."""
        self.site.login("carol").close()
        return self.site.stateOf(self.site.at("A")) == "up"

    def kick(self) -> None:
        """A dialog says what ends; then the session ends, and the log has the reason and who gave the order."""
        with self.sessionOf("eve") as client, self.sessionOf("fay") as other:
            self.seesRow("sessions", "fay")
            self.search(user="eve")
            self.lacksRow("sessions", "fay")
            self.order("sessions", "eve")
            self.seesText("#order .effect", "1 session")
            self.browser.type("#order [name=reason]", "gone <b>phishing</b>")
            self.assertTrue(client.noop().startswith(b"OK"))
            self.assertIn("1 session ended", self.confirm())
            self.assertTrue(client.ended())
            self.lacksRow("sessions", "eve")
            self.assertTrue(other.noop().startswith(b"OK"))
            self.browser.click("#filter [type=reset]")
            self.seesRow("sessions", "fay")
        self.assertIn("gone <b>phishing</b>", self.site.gateway.log())
        self.assertIn("by token operateer", self.site.gateway.log())

    def explanation(self) -> None:
        """A failure is explained in a dialog."""
        self.site.login("gus", "wrong").close()
        self.order("failures", "gus")
        self.seesText("#explanation[open] .answer", self.site.service.url)
        self.seesText("#explanation[open] .answer", "denied")
        self.browser.press(ESCAPE)
        self.sees("!document.querySelector('#explanation').open")

    def blocking(self) -> None:
        """A block is seen, so is the rule of a login that it refuses, and it ends by a dialog."""
        self.site.ask("blocks", {"thing": "hal", "for": 3600, "reason": "<b>abuse</b>"})
        self.seesRow("blocks", "hal", "block", "<b>abuse</b>")
        waitUntil(self.isRefused, "the workers know the block")
        self.seesRow("failures", "hal", "blocked (block)")
        self.order("blocks", "hal")
        self.seesText("#order .effect", "hal is blocked by block until")
        self.assertIn("hal is not blocked any more", self.confirm())
        self.lacksRow("blocks", "hal")
        waitUntil(lambda: not self.isRefused(), "the workers know that it has ended")

    def isRefused(self) -> bool:
        """Whether the login of a user is refused; his password is right."""
        before = self.site.service.askedAbout("hal")
        self.site.login("hal").close()
        return len(self.site.service.askedAbout("hal")) == len(before)

    def keyboard(self) -> None:
        """Everything can be done by keyboard alone: here a kick, and the focus returns."""
        with self.sessionOf("hal") as client:
            self.seesRow("sessions", "hal")
            self.browser.run("document.activeElement.blur()")
            self.tabTo("it.name === 'user' && it.closest('#filter')")
            self.browser.press(*"hal", ENTER)
            self.tabTo("it.matches('#sessions tbody tr:has(th) button') && it.closest('td:last-child')")
            self.browser.press(SPACE)
            self.sees("document.querySelector('#order').open")
            self.browser.press(ESCAPE)
            self.sees("!document.querySelector('#order').open")
            self.assertTrue(self.browser.run("return document.activeElement.matches('#sessions tbody button')"))
            self.browser.press(ENTER)
            self.seesText("#order .effect", "1 session")
            self.tabTo("it.matches('#order .go')")
            self.browser.press(ENTER)
            self.assertTrue(client.ended())
            self.seesText("#order .effect", "1 session ended")
            self.browser.press(ENTER)
            self.sees("!document.querySelector('#order').open")
            self.lacksRow("sessions", "hal")
            self.assertTrue(self.browser.run("return document.activeElement.closest('#sessions') !== null"))

    def pause(self) -> None:
        """A paused page stays as it is, until it goes on."""
        self.seesNumber("Sessions", "0")
        self.browser.click("#pause")
        before = self.browser.text("#main")
        with self.sessionOf("ida"):
            begun = self.site.ask("stats")["uptime"]
            waitUntil(lambda: self.site.ask("stats")["uptime"] > begun + 1.5, "news were sent")
            self.assertEqual(self.browser.text("#main"), before)
            self.assertEqual(self.browser.run("return document.querySelector('#pause').ariaPressed"), "true")
            self.browser.click("#pause")
            self.seesNumber("Sessions", "1")

    def interruptions(self) -> None:
        """
        The page goes on after an upgrade and a restart, as after the reload above, and does not ask for the token
        again.
        """
        self.browser.allowed |= {"net::ERR_"}
        for user, interrupt in (("bob", self.site.upgrade), ("carol", self.restart)):
            interrupt()
            self.site.login(f"late{user}", "wrong").close()
            self.seesRow("failures", f"late{user}", within=20)
            self.assertTrue(self.browser.run("return window.stays && !document.querySelector('#access').open"), user)

    def restart(self) -> None:
        """End the gateway, and start it again."""
        self.site.end()
        self.seesText("#news", "lost", within=20)
        self.site.start()

    def levels(self) -> None:
        """
        Each level sees the tables and orders that it may use, and no others. A page that is loaded anew asks for the
        token again, and one that was left takes no connection: a browser has six for a gateway. The page is small.
        """
        # So that each part is sent anew, and its size is known.
        self.browser.devtools("Network.setCacheDisabled", cacheDisabled=True)
        self.site.login("zoe", "wrong").close()
        with self.sessionOf("zoe"):
            some = ["backends", "auth", "servers", "workers"]
            every = ["backends", "auth", "servers", "stuck", "failures", "blocks", "sessions", "workers"]
            for level, tables, orders in (
                ("read", some, set()),
                ("operate", every, {"failures", "sessions"}),
                ("admin", every, {"backends", "failures", "sessions"}),
            ):
                self.enter(level)
                self.seesRow("backends", self.site.at("A"))
                if level != "read":
                    self.seesRow("sessions", "zoe")
                shown = self.browser.run(
                    "return [...document.querySelectorAll('section:has(table)')]"
                    ".filter(each => each.id !== 'plots' && each.checkVisibility()).map(each => each.id)"
                )
                self.assertEqual(shown, tables, level)
                having = self.browser.run(
                    "return [...document.querySelectorAll('tbody td:last-child button')]"
                    ".filter(each => each.checkVisibility()).map(each => each.closest('section').id)"
                )
                self.assertEqual(set(having), orders, level)
                self.assertEqual("zoe" in self.browser.run("return document.body.innerHTML"), level != "read")
        sizes = self.browser.run(
            "return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".filter(each => !each.name.includes('/api/'))"
            ".map(each => [each.name, each.decodedBodySize, each.encodedBodySize])"
        )
        self.assertTrue(all(size for _, *both in sizes for size in both), sizes)
        self.assertLess(sum(size for _, size, _ in sizes), 120 * 1024, sizes)
        self.assertLess(sum(size for _, _, size in sizes), 60 * 1024, sizes)
        self.browser.devtools("Network.setCacheDisabled", cacheDisabled=False)
        for _ in range(3):
            self.browser.go("about:blank")
            self.enter("admin")

    def maintenance(self) -> None:
        """Drain and resume; cancelling does nothing. A backend outside of groups takes no orders."""
        address = self.site.at("B")
        with self.sessionOf("jim", "smtp"):
            self.seesRow("backends", "-")
            self.assertEqual(self.browser.run(_ORDERED), ["store"])
        for parts, state in (("up",), "drain"), (("drain",), "up"):
            self.order("backends", address, *parts)
            self.seesText("#order", address)
            self.assertNotIn("No other server", self.browser.text("#order .effect"))
            self.browser.click("#order .cancel")
            self.seesRow("backends", address, *parts)
            self.order("backends", address, *parts)
            self.confirm()
            self.seesRow("backends", address, state)
            self.assertEqual(self.site.stateOf(address), state)
            if state == "drain":
                self.order("backends", self.site.at("A"), "up")
                self.seesText("#order .effect", "No other server of its group is up")
                self.browser.click("#order .cancel")

    def hostile(self) -> None:
        """
        Hostile user names, and a hostile authentication service, stay text and do not make the page wider. In light and
        in dark, at all widths, axe-core finds no serious fault.
        """
        self.site.service.manners["nemo"] = lambda service, question: Answer({"Auth-Status": _MARKUP})
        released = threading.Event()
        self.addCleanup(released.set)
        self.site.service.manners["slow"] = lambda service, question: _after(released)
        with contextlib.ExitStack() as stack:
            stuck = self.site.client()
            stack.callback(stuck.close)
            stuck.send(b"L0 LOGIN slow x\r\n")
            for user in HOSTILE:
                stack.enter_context(self.sessionOf(user, "smtp"))
                self.site.login(user, "wrong", "smtp").close()
            self.site.login("nemo").close()
            self.seesRow("failures", "nemo", _MARKUP)
            self.seesRow("sessions", _MARKUP)
            self.seesRow("failures", "\\u{202e}xxx")
            self.seesRow("stuck", "slow", within=20)
            for width in WIDTHS:
                # All that a scheme changes are colours.
                for scheme, rule in ("light", ""), ("dark", "color-contrast"):
                    self.browser.look(width, scheme=scheme)
                    self.assertFalse(self.browser.overflows(), width)
                    self.assertEqual(self.browser.serious(rule=rule), [], (width, scheme))
            self.assertIsNone(self.browser.run("return window.pwned"))
            self.assertEqual(self.browser.run("return document.querySelectorAll('img, main script').length"), 0)
            self.assertNotIn("\u202e", self.browser.run("return document.body.innerText"))
            self.browser.look(360)
            self.order("sessions", _MARKUP)
            self.seesText("#order .effect", "1 session")
            self.assertEqual(self.browser.serious("#order"), [])
            self.assertFalse(self.browser.overflows())
            self.browser.press(ESCAPE)
            self.browser.look()

    def polling(self) -> None:
        """Where the stream does not come through, the page asks for the numbers every two seconds."""
        self.browser.allowed.add("net::ERR_")
        self.browser.devtools("Network.enable")
        self.browser.devtools("Network.setBlockedURLs", urls=["*/api/1/events"])
        self.enter("operate")
        self.seesText("#news", "every 2 s", within=20)
        with self.sessionOf("kay"):
            self.seesNumber("Sessions", "1", within=20)
        self.seesNumber("Sessions", "0", within=20)
        self.browser.devtools("Network.setBlockedURLs", urls=[])

    def plain(self) -> None:
        """Without JavaScript there are the same tables; the token is the password of HTTP's basic authentication."""
        captions = self.browser.run("return [...document.querySelectorAll('caption')].map(each => each.innerText)")
        self.browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
        self.browser.go(f"{self.origin}/")
        self.assertIn("JavaScript", self.browser.text("noscript"))
        with self.sessionOf("pat"):
            self.browser.go(f"{self.origin.replace('://', '://any:' + TOKENS['operate'] + '@')}/plain")
        shown = self.browser.text("body")
        plain = self.browser.run("return [...document.querySelectorAll('caption')].map(each => each.innerText)")
        self.assertEqual(plain, captions)
        rows = self.browser.run("return [...document.querySelectorAll('tbody tr')].map(each => each.textContent)")
        self.assertTrue(any(all(part in row for part in ("pat", "imap", "relay")) for row in rows), rows)
        for part in (self.site.at("A"), self.site.at("B"), self.site.service.url, "imap", "smtp"):
            self.assertIn(part, shown)
        self.assertEqual(self.browser.run("return document.forms.length + document.scripts.length"), 0)
        self.assertFalse(self.browser.overflows())
        self.browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
        self.assertEqual(self.browser.serious(), [])


class _Faulty(BaseHTTPRequestHandler):
    """A page that does what the live page must not."""

    other = 0

    def do_GET(self) -> None:
        isScript = self.path.endswith(".js")
        script = (
            f"console.error('complaint'); fetch('http://127.0.0.1:{self.other}/far').catch(() => 0); throw Error('x')"
        )
        body = script if isScript else "<title>x</title><p style='color: red'><script src=a.js></script><img src=b.png>"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if isScript else "text/html")
        self.send_header(
            "Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src *; img-src 'self'"
        )
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


class FaultsTests(BrowserTestCase):
    """The harness itself."""

    def tearDown(self) -> None:
        """This page has faults."""

    def test_faults(self) -> None:
        """Complaints on the console, refusals of the policy, foreign requests and inaccessible parts are noticed."""
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Faulty) for _ in range(2)]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)
        self.patch(_Faulty, "other", servers[1].server_port)
        origin = f"http://127.0.0.1:{servers[0].server_port}"
        self.browser.go(f"{origin}/")
        found: list[str] = []
        parts = (
            "complaint",
            "Uncaught Error: x",
            "Content Security Policy",
            f"request to http://127.0.0.1:{_Faulty.other}/far",
        )

        def noticed() -> bool:
            found.extend(self.browser.faults(origin))
            return all(any(part in each for each in found) for part in parts)

        waitUntil(noticed, "all are noticed")
        self.assertFalse([each for each in found if each == f"request to {origin}/a.js"])
        self.assertTrue(any(each.startswith("image-alt: ") for each in self.browser.serious()))
