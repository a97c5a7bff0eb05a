"""
Tests for L{mailgate.auth.http.authenticator}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IAgent
from zope.interface.verify import verifyObject

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.http.asking import REST
from mailgate.auth.http.authenticator import KIND
from mailgate.auth.http.dialect import NGINX
from mailgate.auth.http.settings import HTTPSettings
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import (
    Backend,
    Client,
    ClientCertificate,
    Credentials,
    Denial,
    Method,
    Route,
    TLSDetails,
    TLSState,
    Trouble,
)
from mailgate.test.support.findings import askedOf
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, ROUTE, UNDECIDED, AuthenticatorTestCase, failed
from mailgate.test.support.httpsettings import server, settings
from mailgate.tls.settings import TLSSettings


class JudgementTests(AuthenticatorTestCase):
    """One service that answers."""

    urls = "http://one:9000/auth?key=hush"

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def test_interfaces(self):
        """The authenticator and the fake agent provide their interfaces."""
        verifyObject(IAuthenticator, self.authenticator)
        verifyObject(IJudge, self.authenticator)
        verifyObject(IAgent, self.agent)
        self.assertIs(KIND.settings, HTTPSettings)
        self.assertEqual((KIND.name, KIND.directive, KIND.methods), ("http", "auth_http", frozenset(Method)))

    def test_certificate(self):
        """A client's certificate is described, and sent whole only with auth_http_pass_client_cert."""
        made = ClientCertificate("CN=joe", "CN=authority", "01", "ef", "joe", b"PEM")
        details = TLSDetails(verification="SUCCESS", certificate=made)
        client = Client("192.0.2.7", 4711, TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"), details=details)
        for passes in (False, True):
            self.authenticator = self.make(self.agents, passesCertificate=passes)
            self.authenticate(evolve(REQUEST, client=client))
            asked = self.agent.asked[-1][2]
            self.assertIn(b"\r\nAuth-SSL-Verify: SUCCESS\r\nAuth-SSL-Subject: CN=joe\r\n", asked)
            self.assertEqual(b"\r\nAuth-SSL-Cert: PEM\r\n" in asked, passes)

    def test_accepted(self):
        """An acceptance is a route; nothing is logged."""
        judged = self.authenticate()
        self.assertNoResult(judged)
        method, uri, block, _ = self.agent.asked[0]
        self.assertEqual((method, uri), (b"GET", b"http://one:9000/auth?key=hush"))
        self.assertIn(b"Auth-User: joe\r\nAuth-Pass: sesame\r\n", block)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual(self.log(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self):
        """A refusal is a denial and no error, and the service is not skipped after it."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: Go away", "Auth-Wait: 3", "Auth-Server: 10.0.0.1")
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.DENIED, b"Go away", wait=3))
        self.assertEqual(self.log(), [])

    def test_anyCode(self):
        """With Auth-Status the HTTP status does not matter."""
        for code in (204, 301, 403, 404, 500, 503):
            judged = self.authenticate()
            self.agent.answer(*ACCEPTED, "Location: http://elsewhere/", code=code)
            self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_noStatus(self):
        """Without Auth-Status, or with an empty one, the login gets a temporary failure."""
        for fields in (ACCEPTED[1:], ("Auth-Status: ", *ACCEPTED[1:])):
            for code in (200, 500):
                judged = self.authenticate()
                self.agent.answer(*fields, code=code)
                self.assertEqual(self.successResultOf(judged), UNDECIDED)
                reason = f"failed while reading the response: {code} without Auth-Status"
                self.assertEqual(self.log(), [failed(reason)])

    def test_missingStatus(self):
        """With auth_http_missing_status accept this is a logged acceptance, as with nginx, except for a 5xx."""
        self.authenticator = self.make(self.agents, missingStatus="accept")
        for code in (200, 404):
            judged = self.authenticate()
            self.agent.answer(*ACCEPTED[1:], code=code)
            self.assertEqual(self.successResultOf(judged), ROUTE)
            self.assertEqual(self.log(), [failed("sent no Auth-Status, which counts as an acceptance", "warning")])
        judged = self.authenticate()
        self.agent.answer(*ACCEPTED[1:], code=500)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        reason = "failed while reading the response: 500 without Auth-Status"
        self.assertEqual(self.log(), [failed(reason)])

    def test_emptyStatus(self):
        """An empty status is then a logged refusal in the protocol's words; other texts are not logged."""
        self.authenticator = self.make(self.agents, missingStatus="accept")
        judged = self.authenticate()
        self.agent.answer("Auth-Status: ", *ACCEPTED[1:])
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.DENIED, close=True))
        self.assertEqual(self.log(), [failed("sent no Auth-Status, which counts as a refusal", "warning")])
        self.authenticate()
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.log(), [])

    def test_errorPage(self):
        """A response without status and backend is no acceptance, even with a default backend."""
        self.authenticator = self.make(self.agents, Backend("mail.example.com", 143), missingStatus="accept")
        judged = self.authenticate()
        self.agent.answer("Content-Type: text/html", code=404)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertIn(failed("did not send server or port"), self.log())

    def test_untellable(self):
        """A login that cannot be sent to the service is refused without a request."""
        self.authenticator = self.make(self.agents, escape="none")
        judged = self.authenticator.judge(evolve(REQUEST, credentials=Credentials(Method.PLAIN, b"joe", b"a\r\nb")))
        denial = Denial(Trouble.DENIED, reason="a header cannot carry this user name or password unescaped")
        self.assertEqual(self.successResultOf(judged), Judgement(denial, storable=False))
        self.assertEqual((self.agent.asked, self.log()), ([], []))

    def test_unusable(self):
        """An acceptance without a usable backend is a temporary failure, logged as by nginx."""
        for fields, reason, text in (
            ((), "did not send server or port", ""),
            (("Auth-Server: a b", "Auth-Port: 143"), "sent an invalid server address", ', text "a b"'),
            (("Auth-Server: a", "Auth-Port: x"), "sent an invalid server port", ', text "x"'),
        ):
            judged = self.authenticate()
            self.agent.answer("Auth-Status: OK", *fields)
            denial = self.successResultOf(judged)
            self.assertEqual(denial, UNDECIDED)
            self.assertEqual(denial.why, f"auth service http://one:9000/auth {reason}")
            self.assertEqual(self.log(), [failed(reason) + text])

    def test_noPassword(self):
        """A digest without Auth-Pass is a temporary failure in IMAP."""
        judged = self.authenticate(evolve(REQUEST, credentials=Credentials(Method.CRAM_MD5, b"joe", b"d", b"<s>")))
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(self.log(), [failed("did not send password")])

    def test_default(self):
        """The default backend serves accounts for which the service names none."""
        default = Backend("mail.example.com", 143)
        self.authenticator = self.make(self.agents, default)
        judged = self.authenticate()
        self.agent.answer("Auth-Status: OK", "Auth-User: ann")
        self.assertEqual(self.successResultOf(judged), Route((default,), b"ann", b"sesame"))

    def test_configuredHeaders(self):
        """The operator's headers are part of every request."""
        self.authenticator = self.make(self.agents, headers=((b"X-Key", b"hush"),))
        self.authenticate()
        self.assertTrue(self.agent.asked[0][2].endswith(b"\r\nX-Key: hush\r\n"))

    def test_defect(self):
        """An exception that is no failure of a service is passed on."""
        judged = self.authenticate()
        self.agent.fail(ZeroDivisionError())
        self.failureResultOf(judged, ZeroDivisionError)


class WaitTests(AuthenticatorTestCase):
    """A service that answers WAIT."""

    urls = "http://one:9000/auth"

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def test_askedAgain(self):
        """After Auth-Wait seconds the same request is sent again, with the same attempt number."""
        judged = self.authenticate()
        for asked in (1, 2):
            self.agent.answer("Auth-Status: WAIT", "Auth-Wait: 5")
            self.clock.advance(4.9)
            self.assertEqual(len(self.agent.asked), asked)
            self.clock.advance(0.1)
            self.assertEqual(len(self.agent.asked), asked + 1)
        self.assertEqual(len({block for _, _, block, _ in self.agent.asked}), 1)
        self.assertNoResult(judged)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_notHammered(self):
        """Without Auth-Wait one second passes."""
        self.authenticate()
        self.agent.answer("Auth-Status: WAIT")
        self.assertEqual(len(self.agent.asked), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.agent.asked), 2)

    def test_storable(self):
        """An answer after WAIT is not storable; an answer at once is."""
        for answer, judgement in ((ACCEPTED, ROUTE), (("Auth-Status: no",), Denial(Trouble.DENIED, b"no", close=True))):
            judged = ensureDeferred(self.authenticator.judge(REQUEST))
            self.agent.answer(*answer)
            self.assertEqual(self.successResultOf(judged), Judgement(judgement, storable=True))
            judged = ensureDeferred(self.authenticator.judge(REQUEST))
            self.agent.answer("Auth-Status: WAIT")
            self.clock.advance(1)
            self.agent.answer(*answer)
            self.assertEqual(self.successResultOf(judged), Judgement(judgement, storable=False))

    def test_cancelled(self):
        """After a cancellation in the pause there are no more requests."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: WAIT", "Auth-Wait: 5")
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.clock.advance(5)
        self.assertEqual(len(self.agent.asked), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CacheTests(AuthenticatorTestCase):
    """A service behind a cache."""

    urls = "http://one:9000/auth"

    def make(self, agents, default=None, **others):
        """Return an authenticator behind a cache with a time of one minute."""
        asking = super().make(agents, default, **others)
        return CachedAuthenticator(asking, self.clock, 60.0, 65536, ("imap", ()), lambda n: bytes(n), NGINX.told)

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def judged(self, *fields):
        """Return the answer, for which the service sends C{fields} if it is asked, and the number of requests."""
        judged = self.authenticate()
        if not judged.called:
            self.agent.answer(*fields)
        return self.successResultOf(judged), len(self.agent.asked)

    def test_accepted(self):
        """An acceptance causes one request per minute, whatever password the service sends."""
        for password in ((), ("Auth-Pass: sesame",), ("Auth-Pass: master",)):
            self.agent.asked.clear()
            answer, _ = self.judged(*ACCEPTED, *password)
            self.assertEqual(self.judged(), (answer, 1))
            self.clock.advance(60)
            self.assertEqual(self.judged("Auth-Status: no")[1], 2)
            self.clock.advance(60)

    def test_refused(self):
        """A stored refusal keeps its text, its code and its pause."""
        refusal = Denial(Trouble.DENIED, b"no", b"550", 3)
        self.assertEqual(self.judged("Auth-Status: no", "Auth-Wait: 3", "Auth-Error-Code: 550"), (refusal, 1))
        self.assertEqual(self.judged(), (refusal, 1))

    def test_undecided(self):
        """Failures of the service and unusable answers are not stored."""
        self.assertEqual(self.judged("X: y"), (UNDECIDED, 1))
        self.assertEqual(self.judged("Auth-Status: OK"), (UNDECIDED, 2))
        self.assertEqual(self.judged(*ACCEPTED), (ROUTE, 3))
        self.assertEqual((len(self.log()), len(self.said())), (2, 2))

    def test_wait(self):
        """Answers after WAIT are not stored."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: WAIT")
        self.clock.advance(1)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual(self.judged("Auth-Status: no")[1], 3)

    def test_cancelled(self):
        """When all identical logins are cancelled, so is the request."""
        joined = [self.authenticate(), self.authenticate()]
        for each in joined:
            self.assertEqual(self.agent.cancelled, 0)
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual((len(self.agent.asked), self.agent.cancelled), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.log(), [])


class FailoverTests(AuthenticatorTestCase):
    """Several services, some of which fail."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.agents

    def asked(self):
        """Return the number of requests to each service."""
        return tuple(len(agent.asked) for agent in self.agents)

    def failFirst(self):
        """Begin a login whose first service fails and whose second one accepts."""
        judged = self.authenticate()
        self.one.fail(ResponseFailed([]))
        self.two.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        return self.log()

    def test_firstAlone(self):
        """If the first service answers, even with a refusal, the second is not asked."""
        judged = self.authenticate()
        self.one.answer("Auth-Status: no")
        self.assertIs(self.successResultOf(judged).trouble, Trouble.DENIED)
        self.assertEqual(self.asked(), (1, 0))

    def test_second(self):
        """If it fails, the second gets the same request; this is logged without the query."""
        (logged,) = self.failFirst()
        self.assertIn(", auth http server http://one:9000/auth failed ", logged)
        self.assertNotIn("?", logged)
        self.assertEqual(self.one.asked[0][2], self.two.asked[0][2])
        self.assertEqual(self.two.asked[0][1], b"https://two/auth")

    def test_rest(self):
        """A failed service is skipped for REST seconds, and then used first again."""
        self.failFirst()
        self.clock.advance(REST - 0.1)
        self.authenticate()
        self.assertEqual(self.asked(), (1, 2))
        self.clock.advance(0.1)
        self.authenticate()
        self.assertEqual(self.asked(), (2, 2))

    def test_allRest(self):
        """If all services have failed, all are asked; the one that answers is no longer skipped."""
        judged = self.authenticate()
        self.one.fail(ResponseFailed([]))
        self.two.answer("X: y")
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(len(self.log()), 2)
        judged = self.authenticate()
        self.assertEqual(self.asked(), (2, 1))
        self.one.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.authenticate()
        self.assertEqual(self.asked(), (3, 1))

    def test_noAuthStatus(self):
        """A response without Auth-Status is a failure of the service."""
        self.authenticate()
        self.one.answer("Server: down", code=502)
        self.assertEqual(self.asked(), (1, 1))

    def test_timeout(self):
        """Each service has the whole auth_http_timeout; one that is too slow is logged."""
        judged = self.authenticate()
        self.clock.advance(59.9)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 0), 0))
        self.clock.advance(0.1)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 1), 1))
        self.clock.advance(60)
        denial = self.successResultOf(judged)
        self.assertEqual(denial, UNDECIDED)
        self.assertIn("failed while processing the request: timed out after 60 seconds", denial.why)
        self.assertNotIn("skipping", denial.why)
        reason = "failed while processing the request: timed out after 60 seconds, skipping it for 10 s"
        self.assertEqual(self.log()[0], failed(reason))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lastMoment(self):
        """An answer at the last moment counts."""
        self.one._cancel = lambda answer: self.one.answer(*ACCEPTED)
        judged = self.authenticate()
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual((self.asked(), self.log()), ((1, 0), []))

    def test_cancelled(self):
        """After a cancellation there are no more requests, and the service has not failed."""
        judged = self.authenticate()
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 0), 1))
        self.assertEqual(self.log(), [])
        self.authenticate()
        self.assertEqual(self.asked(), (2, 0))


class BuildTests(SynchronousTestCase):
    """What is built for a server."""

    def connect(self, url):
        """Send a request to C{url}, and return the reactor."""
        reactor = MemoryReactorClock()
        authenticator = KIND.build(server(settings(url, timeout=7.0)), None, reactor, Journal())
        authenticator.authenticate(REQUEST)
        return reactor

    def logins(self, requests=(REQUEST,) * 3, **others):
        """Return the number of requests if C{requests} are judged with the settings C{others}."""
        reactor = MemoryReactorClock()
        authenticator = KIND.build(server(settings(**others)), None, reactor, Journal())
        verifyObject(IAuthenticator, authenticator)
        for request in requests:
            authenticator.authenticate(request)
        return len(reactor.tcpClients)

    def foundOut(self, server):
        """Return which details of a connection a login at C{server} looks up."""
        authenticator = KIND.build(server, None, MemoryReactorClock(), Journal())
        secure = evolve(REQUEST.client, tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        return askedOf(secure, lambda client: authenticator.authenticate(evolve(REQUEST, client=client)))

    def test_foundOut(self):
        """Only details that headers contain are looked up, including headers of a preset."""
        headers = ((b"A", b"$ssl_server_name"), (b"B", b"$session_id"))
        for others, found in (({}, []), ({"headers": headers}, ["details"]), ({"preset": "mailu"}, ["local"])):
            for ttl in (0.0, 60.0):
                self.assertEqual(self.foundOut(server(settings(cacheTTL=ttl, **others))), found)

    def test_verified(self):
        """At a server that verifies clients, the client's certificate is looked up."""
        for ttl in (0.0, 60.0):
            verifying = server(settings(cacheTTL=ttl), TLSSettings(verifyClient="on"))
            self.assertEqual(self.foundOut(verifying), ["details"])

    def test_cachedHeaders(self):
        """With the cache, another local port causes another request; another port of the client does not."""
        for changed, asked in (({"port": 4712, "session": "8"}, 1), ({"localPort": 25}, 2)):
            again = evolve(REQUEST, client=evolve(REQUEST.client, **changed))
            self.assertEqual(self.logins((REQUEST, again), cacheTTL=60.0, preset="nauthilus"), asked)

    def test_cache(self):
        """There is a cache if auth_cache_ttl is set; by default there is none."""
        self.assertEqual(self.logins(), 3)
        self.assertEqual(self.logins(cacheTTL=0.0), 3)
        self.assertEqual(self.logins(cacheTTL=0.5), 1)

    def test_tcp(self):
        """An address is connected to at its port, within the time-out."""
        for url, place in (("http://127.0.0.1:9000/", ("127.0.0.1", 9000)), ("https://[::1]/", ("::1", 443))):
            (client,) = self.connect(url).tcpClients
            self.assertEqual((client[:2], client[3]), (place, 7.0))

    def test_unix(self):
        """A unix socket is connected to by its path."""
        (client,) = self.connect("unix:/run/auth.sock:/a").unixClients
        self.assertEqual(client[0], "/run/auth.sock")

    def test_keepalive(self):
        """Requests are HTTP/1.1 unless auth_http_keepalive is off."""
        for changes, version in (({}, b"1.1"), ({"keepalive": "on"}, b"1.1"), ({"keepalive": "off"}, b"1.0")):
            reactor = MemoryReactorClock()
            authenticator = KIND.build(server(settings(**changes)), None, reactor, Journal())
            authenticator.authenticate(REQUEST)
            transport = StringTransport()
            reactor.tcpClients[0][2].buildProtocol(None).makeConnection(transport)
            self.assertTrue(transport.value().partition(b"\r\n")[0].endswith(b" HTTP/" + version))
