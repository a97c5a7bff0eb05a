"""
An authenticator over a fake agent, with requests and answers.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from zope.interface import implementer

from mailgate.auth.fairqueue import FairQueue
from mailgate.auth.http.authenticator import HTTPAuthenticator
from mailgate.auth.http.response import HTTPResponse, Status
from mailgate.auth.http.services import SharedService
from mailgate.limits.settings import LimitSettings
from mailgate.log.journal import Journal
from mailgate.log.levels import levelName
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.test.support.httpagent import byName
from mailgate.test.support.httpsettings import server, settings

__all__ = ["ACCEPTED", "REQUEST", "ROUTE", "UNDECIDED", "AuthenticatorTestCase", "FakeAgent", "failed"]

REQUEST = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), Client("192.0.2.7", 4711))


def failed(reason: str, event: str = "failed") -> str:
    """Return the log line about the first service and C{REQUEST}."""
    about = f"client 192.0.2.7:4711, auth http server http://one:9000/auth {reason}, protocol imap"
    return f'auth service {event}: {about}, server -, session -, user "joe"'


ACCEPTED = ("Auth-Status: OK", "Auth-Server: 10.0.0.1", "Auth-Port: 143")
ROUTE = Route((Backend("10.0.0.1", 143),), b"joe", b"sesame")
UNDECIDED = Denial(Trouble.TEMPORARY)


@implementer(IAgent)
class FakeAgent:
    """An agent whose requests wait in C{asked} until the test answers. Each has its headers and its Deferred."""

    def __init__(self):
        self.asked = []
        self.cancelled = 0

    def request(self, method, uri, headers=None, bodyProducer=None):
        answer = Deferred(self._cancel)
        self.asked.append((method, uri, headers.block, answer))
        return answer

    def _cancel(self, answer):
        self.cancelled += 1

    def answer(self, *fields, code=200):
        """Answer the last request."""
        pairs = [field.encode().split(b": ", 1) for field in fields]
        self.asked[-1][3].callback(HTTPResponse(Status((b"HTTP", 1, 1), code, b""), byName(pairs)))

    def fail(self, reason):
        """Let the last request fail."""
        self.asked[-1][3].errback(reason)


class AuthenticatorTestCase(SynchronousTestCase):
    """An authenticator with two services over fake agents."""

    urls = "http://one:9000/auth?key=hush\nhttps://two/auth"

    def setUp(self):
        self.clock = Clock()
        self.events = []
        self.outages = []
        self.journal = Journal(LogLevel.info, self.observe)
        self.agents = [FakeAgent() for _ in self.urls.split("\n")]
        self.authenticator = self.make(self.agents)

    def observe(self, event):
        """Keep an event: those about an outage of a service in C{outages}, the others in C{events}."""
        isOfService = event["log_format"].startswith("auth service {url} ")
        (self.outages if isOfService else self.events).append(event)

    def make(self, agents, default=None, places=0, **others):
        """Return an authenticator over C{agents}. Each may have C{places} requests at a time; 0 means no limit."""
        group = settings(self.urls, **others)
        dialect = group.dialect(server(group))
        services = [
            SharedService(url, agent, FairQueue(places, self.clock), self.clock, self.journal).join()
            for url, agent in zip(group.urls, agents, strict=True)
        ]
        clientOf = LimitSettings().clientOf
        return HTTPAuthenticator(group, dialect, default, self.clock, self.journal, services, clientOf)

    def log(self):
        """Return the log lines since the last call."""
        logged = [formatEvent(event) for event in self.events]
        self.events.clear()
        for text in logged:
            self.assertNotIn("sesame", text)
            self.assertNotIn("hush", text)
        return logged

    def said(self):
        """Return the lines about outages since the last call, each with its level."""
        lines = [(levelName(event), formatEvent(event)) for event in self.outages]
        self.outages.clear()
        for _, text in lines:
            self.assertNotIn("hush", text)
        return lines

    def authenticate(self, request=REQUEST):
        """Judge C{request}."""
        return self.authenticator.authenticate(request)
