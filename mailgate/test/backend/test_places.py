"""
Tests for L{mailgate.backend.places}: logins at groups of backends.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.place import NoBackend, Place
from mailgate.backend.places import Places
from mailgate.backend.settings import ProxySettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import Backend, BackendGroup, BackendTLS, Client, Denial, Envelope, Trouble
from mailgate.net.naming import NamingReactor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.rules.facts import factsOf
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.test.support.places import placesFor
from mailgate.testing import Attempt, requestFor, routeTo
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.errors import CertificateError
from mailgate.upstream.peer import Peer
from mailgate.upstream.upstreams import Upstreams

GREETING, OK = b"+OK ready\r\n", b"+OK\r\n"

GROUPS = """
[upstream store]
server =
    192.0.2.1:110
    192.0.2.2:110
[upstream secure]
server = 192.0.2.3:995 name=mail.test
proxy_ssl = on
[geo near]
default = store
192.0.2.0/24 = secure
[map pool]
source = $domain
default = store
example.com = 192.0.2.9:1110
bad.test = nowhere
"""

PAIR = "[upstream pair]\nserver =\n    192.0.2.4:995\n    192.0.2.5:995\nproxy_ssl = on\n"

SERVER = "[server pop3]\nlisten = 127.0.0.1:110\nproxy_pass = {}\n"


def upstreams(text: str = GROUPS) -> Upstreams:
    settings = parse(text.replace("bad.test = nowhere", "bad.test = $user") + SERVER.format("192.0.2.1:110"))
    return Upstreams(settings, NamingReactor(MemoryReactorClock()))


class GroupTests(SynchronousTestCase):
    """A login at a group."""

    def attempt(self, text: str, **changes: Any) -> Attempt:
        self.groups = changes.pop("groups", None) or upstreams()
        return Attempt(POP3, route=routeTo(BackendGroup(text), **changes), upstreams=self.groups)

    def logIn(self, attempt: Attempt) -> ProxyClient:
        attempt.accept()
        attempt.says(GREETING, OK, OK)
        client: ProxyClient = self.successResultOf(attempt.result)
        return client

    def test_next(self) -> None:
        """A server that fails rests, which is logged, and the next one serves."""
        attempt = self.attempt("store")
        attempt.refuse()
        self.logIn(attempt)
        self.assertEqual(attempt.tried, [("192.0.2.1", 110), ("192.0.2.2", 110)])
        self.assertIn("upstream store: backend 192.0.2.1:110 failed once and is not used for 10 s", attempt.log)
        again = self.attempt("store", groups=self.groups)
        self.assertEqual(again.tried, [("192.0.2.2", 110)])

    def test_failuresCounted(self) -> None:
        """The line says after how many failures it rests."""
        groups = upstreams(GROUPS.replace("192.0.2.1:110", "192.0.2.1:110 max_fails=2", 1))
        log: list[str] = []
        for _ in range(4):
            attempt = self.attempt("store", groups=groups)
            if attempt.tried == [("192.0.2.1", 110)]:
                attempt.refuse()
            self.logIn(attempt)
            log += attempt.log
        self.assertIn("upstream store: backend 192.0.2.1:110 failed 2 times and is not used for 10 s", log)

    def test_together(self) -> None:
        """Logins that began before the rest log nothing more about it. A login that fails after the rest does."""
        clock = MemoryReactorClock()
        clock.advance(1000)
        settings = parse(GROUPS.replace("bad.test = nowhere", "") + SERVER.format("store"))
        groups = Upstreams(settings, NamingReactor(clock))
        first = self.attempt("store", groups=groups)
        others = [self.attempt("store", groups=self.groups) for _ in range(5)]
        inFlight = [first, *(attempt for attempt in others if attempt.tried == [("192.0.2.1", 110)])]
        self.assertEqual(len(inFlight), 3)
        for attempt in inFlight:
            attempt.refuse()
        rests = "upstream store: backend 192.0.2.1:110 failed once and is not used for 10 s"
        self.assertEqual([rests in attempt.log for attempt in inFlight], [True, False, False])
        clock.advance(11)
        later = [self.attempt("store", groups=self.groups) for _ in range(2)]
        (probe,) = (attempt for attempt in later if attempt.tried == [("192.0.2.1", 110)])
        probe.refuse()
        self.assertIn(rests, probe.log)

    def test_allRest(self) -> None:
        """If all servers rest, one login after another tries one. The log has each rest once in C{fail_timeout}."""
        attempts = [self.attempt("store")]
        for _ in range(20):
            attempts[-1].refuse()
            if len(attempts[-1].tried) == 2:
                attempts[-1].refuse()
            attempts.append(self.attempt("store", groups=self.groups))
        lines = [line for attempt in attempts for line in attempt.log if "is not used for" in line]
        self.assertEqual(len(lines), 2)

    def test_refused(self) -> None:
        """A refusal of the login is the client's, and no failure of the server."""
        for _ in range(2):
            attempt = self.attempt("store", judged=False, groups=getattr(self, "groups", None))
            attempt.accept()
            attempt.says(GREETING, OK, b"-ERR wrong\r\n")
            self.assertEqual(self.successResultOf(attempt.result).trouble, Trouble.DENIED)
            self.assertEqual(len(attempt.tried), 1)

    def fails(self, attempt: Attempt, *data: bytes) -> list[int]:
        """The failures of each server after a login at which the first one sends C{data}."""
        attempt.accept()
        attempt.says(*data)
        group: Any = self.groups.find(BackendGroup("store"), factsOf(attempt.request, b"joe"))
        return [peer.fails for peer in group.peers]

    def test_causedByClient(self) -> None:
        """What a client sends, or makes the gateway lack, puts no server to rest: other clients would be locked out."""

        def smtp(*groups: Any, **changes: Any) -> Attempt:
            self.groups = upstreams()
            more = {name: changes.pop(name) for name in ("user", "password", "authzid") if name in changes}
            return Attempt(
                SMTP, *groups, route=routeTo(BackendGroup("store"), **more), upstreams=self.groups, **changes
            )

        ready, offers = b"220 ready\r\n", b"250-mx\r\n250 XCLIENT ADDR LOGIN\r\n"
        bad = Envelope(b"_bad!name", True)
        refused = smtp(envelope=bad)
        self.assertEqual(self.fails(refused, ready, offers, b"220 again\r\n", b"501 bad EHLO\r\n"), [0, 0])
        self.assertEqual(refused.tried, [("192.0.2.1", 110), ("192.0.2.2", 110)])
        self.assertEqual(self.fails(smtp(envelope=bad), ready, offers, b"501 bad XCLIENT\r\n"), [0, 0])
        self.assertEqual(self.fails(smtp(user=b"l" * 500), ready, offers), [0, 0])
        header = ProxySettings(proxyProtocol="on")
        mail = {**ANYBODY, "envelope": Envelope(b"", False, b"MAIL FROM:<a@bad.test>", b"RCPT TO:<b@example.com>")}
        del mail["route"]
        self.assertEqual(self.fails(smtp(header, user=b"", **mail), ready, b"550 no\r\n"), [0, 0])
        login = smtp(SMTPSettings(proxyAuth=True), authzid=b"ann")
        self.assertEqual(self.fails(login, ready, b"250-mx\r\n250 AUTH LOGIN\r\n"), [0, 0])
        self.assertEqual(self.fails(self.attempt("store", password=None), GREETING, OK), [0, 0])

    def test_slowForClient(self) -> None:
        """
        A client without a login can make a server slow, by the name servers of a sender's domain: that is no failure.
        """
        for said, expected in ((b"", [1, 1]), (b"220 ready\r\n", [0, 0])):
            self.groups = upstreams()
            attempt = Attempt(
                SMTP,
                SMTPSettings(xclient="on"),
                upstreams=self.groups,
                **{**ANYBODY, "route": routeTo(BackendGroup("store"), user=b"", password=b"")},
            )
            attempt.accept()
            if said:
                attempt.says(said, b"250 mx\r\n", b"250 ok\r\n")
                self.assertIn(b"MAIL FROM", attempt.says(b"250 mx\r\n"))
            attempt.reactor.advance(10)
            self.assertEqual(len(attempt.tried), 1 if said else 2)
            if not said:
                attempt.refuse()
            attempt.reactor.advance(20)
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            group: Any = self.groups.find(BackendGroup("store"), factsOf(attempt.request, b"joe"))
            self.assertEqual([peer.fails for peer in group.peers], expected)

    def test_goodbye(self) -> None:
        """IMAP's BYE in a login, and a mechanism that is refused, are answers, which the client may have caused."""
        for password, answer in ((b"wrong", b"* BYE too many failures\r\n"), (b"\xff", b"a1 NO\r\n")):
            self.groups = upstreams()
            route = routeTo(BackendGroup("store"), password=password)
            attempt = Attempt(IMAP4, route=route, upstreams=self.groups)
            self.assertEqual(self.fails(attempt, b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\r\n", answer), [0, 0])
            self.assertEqual(len(attempt.tried), 2)

    def test_poison(self) -> None:
        """A login at which servers fail is tried at two of them, and the others stay in use for other clients."""
        servers = "".join(f"    192.0.2.{number}:110\n" for number in range(1, 6))
        attempt = self.attempt("many", groups=upstreams(GROUPS + "[upstream many]\nserver =\n" + servers))
        for _ in range(2):
            attempt.accept()
            attempt.says(GREETING)
            attempt.transport.lose()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertEqual(len(attempt.tried), 2)

    def test_full(self) -> None:
        """A server that greets with a refusal is full, not dead: one client's many connections may have caused that."""
        self.assertEqual(self.fails(self.attempt("store"), b"-ERR too many connections\r\n"), [0, 0])
        self.assertEqual(self.fails(self.attempt("store"), b"what?\r\n"), [1, 0])

    def test_certificate(self) -> None:
        """A refused certificate is no failure that a rest would help against; another end of the handshake is."""
        for error, expected in ((CertificateError("its certificate has expired"), 0), (ConnectionLost(), 1)):
            attempt = self.attempt("pair", groups=upstreams(GROUPS + PAIR))
            attempt.accept().lose(error)
            group: Any = self.groups.find(BackendGroup("pair"), factsOf(attempt.request, b"joe"))
            self.assertEqual([peer.fails for peer in group.peers], [expected, 0])
            self.assertEqual(len(attempt.tried), 2)

    def test_left(self) -> None:
        """After a rest one login tries the server. If its client leaves, the next login may try."""
        attempt = self.attempt("store")
        attempt.refuse()
        attempt.refuse()
        group: Any = self.groups.find(BackendGroup("store"), factsOf(attempt.request, b"joe"))
        group._clock.advance(11)
        for _ in range(5):
            again = self.attempt("store", groups=self.groups)
            self.assertEqual(len(again.tried), 1)
            again.result.addErrback(lambda failure: None)
            again.result.cancel()

    def test_count(self) -> None:
        """A session counts until it ends; one that fails, or is given up, does not."""
        attempt = self.attempt("store")
        group: Any = self.groups.find(BackendGroup("store"), factsOf(attempt.request, b"joe"))
        self.logIn(attempt)
        self.assertEqual([peer.connections for peer in group.peers], [1, 0])
        attempt.session.leave()
        attempt.session.leave()
        self.assertEqual([peer.connections for peer in group.peers], [0, 0])
        other = self.attempt("store", groups=self.groups)
        other.result.addErrback(lambda failure: None)
        other.result.cancel()
        self.assertEqual([peer.connections for peer in group.peers], [0, 0])

    def test_none(self) -> None:
        """Where all servers rest the client hears of a temporary failure, and the log says why."""
        attempt = self.attempt("store")
        attempt.refuse()
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        first = self.attempt("store", groups=self.groups)
        self.assertEqual(first.tried, [("192.0.2.1", 110)])
        again = self.attempt("store", groups=self.groups)
        denial: Any = self.successResultOf(again.result)
        self.assertEqual(denial, Denial(Trouble.TEMPORARY))
        self.assertEqual(again.tried, [])
        self.assertIn("backend upstream store has no usable server", again.log[0])
        self.assertIn("backend upstream store has no usable server", denial.why)
        self.logIn(first)
        self.assertEqual(self.attempt("store", groups=self.groups).tried, [("192.0.2.1", 110)])

    def test_every(self) -> None:
        """All servers of a group can be had, those that rest too, and none of them counts a session."""
        attempt = self.attempt("store")
        attempt.refuse()
        places = attempt.connector._places

        def every(text: str, user: bytes = b"joe") -> list[str]:
            found = places.every(routeTo(BackendGroup(text), user=user), attempt.request)
            return [place.group if isinstance(place, NoBackend) else place.name for place in found]

        self.assertEqual(every("store"), ["192.0.2.1:110", "192.0.2.2:110"])
        self.assertEqual(every("$pool", b"joe@example.com"), ["192.0.2.9:1110"])
        self.assertEqual(every("$pool", b"x y@bad.test"), ["$pool"])
        group: Any = self.groups.find(BackendGroup("store"), factsOf(attempt.request, b"joe"))
        self.assertEqual([peer.connections for peer in group.peers], [0, 1])
        (secure,) = places.every(routeTo(BackendGroup("secure")), attempt.request)
        assert not isinstance(secure, NoBackend)
        self.assertIs(secure.backend.tls, BackendTLS.IMPLICIT)

    def test_rules(self) -> None:
        """Variables lead to a group or to an address; elsewhere is a temporary failure, with the text quoted."""
        self.assertEqual(self.attempt("$near").tried, [("192.0.2.3", 995)])
        self.assertEqual(self.attempt("$pool").tried, [("192.0.2.1", 110)])
        self.assertEqual(self.attempt("$pool", user=b"joe@example.com").tried, [("192.0.2.9", 1110)])
        lost = self.attempt("$pool", user=b"x\r\ny@bad.test")
        self.assertEqual(lost.tried, [])
        lost = self.attempt("$pool", user=b"x y@bad.test")
        self.assertEqual(self.successResultOf(lost.result), Denial(Trouble.TEMPORARY))
        self.assertIn("backend $pool stands for no group of backends and no address", lost.log[0])
        self.assertIn('text "x y@bad.test"', lost.log[0])

    def test_chosenByClient(self) -> None:
        """A client's own text leads to groups alone: no client chooses an address and a port to be connected to."""
        for user in (b"x@192.0.2.66:25", b"x@[2001:db8::1]:25", b"192.0.2.66:25", b"unix:/run/secret"):
            for text in ("$domain", "$user"):
                lost = self.attempt(text, user=user)
                self.assertEqual(lost.tried, [], (user, text))
                self.assertEqual(self.successResultOf(lost.result), Denial(Trouble.TEMPORARY))
        self.assertEqual(self.attempt("$pool", user=b"j:k@example.com").tried, [("192.0.2.9", 1110)])

    def test_folders(self) -> None:
        """A client chooses the name of a unix socket at most, and not its folder."""
        for user in (b"x@../../run/docker", b"x@a/b", b"x@..", b"x@a\0"):
            found = self.attempt("store").connector._places._upstreams
            assert found is not None
            facts = factsOf(requestFor("pop3"), user)
            for text in ("unix:/run/mail/$domain", "unix:/run/mail/$domain/imap"):
                backend = found.find(BackendGroup(text), facts)
                if isinstance(backend, Backend):
                    self.assertEqual(backend.host.count("/"), text.count("/"), backend.host)
                    self.assertNotIn("..", backend.host.split("/"))
                    self.assertNotIn("\0", backend.host)

    def test_ownTLS(self) -> None:
        """A group says how its servers are spoken to, and a server what its certificate must be good for."""
        attempt = self.attempt("secure")
        transport = attempt.accept()
        self.assertEqual(len(transport.tls), 1)
        self.assertEqual(transport.tls[0]._identity.serverName, b"mail.test")

    def test_nameOfAddress(self) -> None:
        """The certificate of an address that resolve finds is the host's, unless a directive says its name."""
        for directives, line, expected in (
            ("", "", "mail.test"),
            ("proxy_ssl_name = other.test", "", "other.test"),
            ("proxy_ssl_name = other.test", "name=line.test", "line.test"),
        ):
            text = f"[upstream found]\nserver = mail.test:995 resolve {line}\nproxy_ssl = on\n{directives}\n"
            groups = upstreams(text)
            group = groups.groups[0]
            (written,) = group.settings.servers
            backend = Backend("192.0.2.5", 995, name=written.name)
            group.replace(written, [Peer(backend, (written.host, written.port), written.limits)])
            transport = self.attempt("found", groups=groups).accept()
            self.assertEqual(transport.tls[0]._identity.serverName, expected.encode())

    def test_noServer(self) -> None:
        """A group whose servers the DNS has not said yet says so."""
        lost = self.attempt("found", groups=upstreams("[upstream found]\nserver = mail.test service=pop3\n"))
        self.assertEqual(self.successResultOf(lost.result), Denial(Trouble.TEMPORARY))
        self.assertIn("backend upstream found has no server: its names were not found", lost.log[0])


class PlaceTests(SynchronousTestCase):
    """Backends that a route names."""

    def place(self, backend: Backend, **settings: Any) -> Any:
        places = placesFor(MemoryReactorClock(), **settings)
        (place,) = places.of(routeTo(backend), requestFor("pop3"))
        self.assertIs(next(iter(places.of(routeTo(backend), requestFor("pop3")))), place)
        return place

    def test_mode(self) -> None:
        """proxy_ssl holds for backends that do not say themselves."""
        for mode, expected in (("off", None), ("on", BackendTLS.IMPLICIT), ("starttls", BackendTLS.STARTTLS)):
            place = self.place(Backend("192.0.2.1", 110), mode=mode)
            self.assertEqual(place.backend.tls, expected)
            self.assertEqual(place.contexts is None, mode == "off")
        self.assertIs(self.place(Backend("192.0.2.1", 110, BackendTLS.OFF), mode="on").contexts, None)

    def test_resolvedName(self) -> None:
        """
        The certificate of a server whose address the DNS says is that of the configured host, unless proxy_ssl_name
        says another name.
        """
        for options, expected in (("", "mail.test"), ("proxy_ssl_name = other.test\n", "other.test")):
            text = f"[upstream x]\nserver = mail.test:995 resolve\nproxy_ssl = on\n{options}"
            groups = Upstreams(parse(text + SERVER.format("x")), NamingReactor(MemoryReactorClock()))
            (group,) = groups.groups
            group.replace(group.settings.servers[0], [Peer(Backend("192.0.2.1", 995), ("mail.test", 995))])
            (place,) = placesFor(MemoryReactorClock(), groups).of(routeTo(BackendGroup("x")), requestFor("pop3"))
            assert not isinstance(place, NoBackend)
            assert place.contexts is not None
            identity = place.contexts.creatorFor(place.backend)._identity
            assert identity is not None
            self.assertEqual(identity.serverName, expected.encode())

    def test_madeAtOnce(self) -> None:
        """What TLS needs is read when the gateway starts: a process that has given up its rights cannot read a key."""
        text = GROUPS.replace("bad.test = nowhere\n", "")
        settings = parse(text + SERVER.format("store"))
        groups = Upstreams(settings, NamingReactor(MemoryReactorClock()))
        made: list[str] = []

        def make(settings: BackendTLSSettings) -> Any:
            made.append(settings.mode)

        for mode in ("off", "starttls"):
            Places(BackendTLSSettings(mode=mode), groups, make, MemoryReactorClock())
        self.assertEqual(made, ["on", "starttls", "starttls", "on"])
        Places(BackendTLSSettings(certificate=("client.pem",)), None, make, MemoryReactorClock())
        self.assertEqual(made[4:], ["off"])

    def test_bounded(self) -> None:
        """However many backends an authentication service names, memory is bounded."""
        places = placesFor(MemoryReactorClock())
        for number in range(3000):
            list(places.of(routeTo(Backend("192.0.2.1", number + 1)), requestFor("pop3")))
        self.assertLessEqual(len(places._places), 1024)


class FactsTests(SynchronousTestCase):
    """What rules know of a login."""

    def test_login(self) -> None:
        """The client, and the name that the authenticator has accepted."""
        facts = factsOf(requestFor("imap", client=Client("192.0.2.7", 1)), b"joe@Example.com")
        self.assertEqual((facts.remoteAddress, facts.domain, facts.protocol), ("192.0.2.7", "example.com", "imap"))

    def test_recipient(self) -> None:
        """Without a login the recipient stands for the user."""
        for command in (b"RCPT TO:<ann@b.test>", b"rcpt to: <ann@b.test> NOTIFY=NEVER"):
            facts = factsOf(requestFor("smtp", envelope=Envelope(recipient=command)), b"")
            self.assertEqual(facts.user, "ann@b.test")


class CheckTests(SynchronousTestCase):
    """What the check finds."""

    def problems(self, target: str, more: str = GROUPS) -> str:
        try:
            parse(more + SERVER.format(target))
        except ConfigurationError as error:
            return str(error)
        return ""

    def test_groups(self) -> None:
        """A group that does not exist, by its name or by rules, stops the start."""
        good = GROUPS.replace("bad.test = nowhere\n", "")
        for target in ("store", "STORE", "$near", "$pool", "$user", "192.0.2.1:110"):
            self.assertEqual(self.problems(target, good), "", target)
        self.assertIn("proxy_pass = stores: there is no [upstream stores]", self.problems("stores", good))
        self.assertIn('proxy_pass = $pool: may be "nowhere"', self.problems("$pool"))
        self.assertIn("the variable $nothing does not exist", self.problems("$nothing", good))
        self.assertIn("may be empty", self.problems("$g", "[geo g]\n10.0.0.0/8 = 192.0.2.1:110\n"))

    def test_unverified(self) -> None:
        """A group that is not verified is warned of, also where its servers have proxy_ssl from elsewhere."""
        unverified = "[mail]\nproxy_ssl = on\n[upstream x]\nserver = a:1\nproxy_ssl_verify = off\n"
        for text, expected in ((unverified, True), (unverified + "proxy_ssl = off\n", False)):
            warnings = "\n".join(map(str, parse(text + SERVER.format("x")).warnings))
            self.assertEqual("[upstream x] proxy_ssl_verify = off: " in warnings, expected, warnings)

    def test_sections(self) -> None:
        """What is wrong with the sections themselves, each in a line with its place."""
        for text, expected in (
            ("[upstream x]\n", "[upstream x] server: is missing"),
            ("[upstream x]\nserver = a:1 backup\n", "has only backups"),
            ("[upstream x]\nserver = a:1\nleast_conn = on\nip_hash = on\n", "ip_hash: cannot stand together with"),
            ("[upstream x]\nserver = a:1 wieght=2\n", "did you mean weight=?"),
            ("[upstream x]\nserver = a:1 weight=0\n", '"weight=0" of a:1: must be a whole number, at least 1'),
            ("[upstream x]\nserver = a:1\n    b:1\n    a:1 weight=1\n", "server = a:1: is given twice"),
            ("[upstream x]\nserver = a\n", "must be host:port"),
            ("[upstream x]\nserver = a:1 service=imap\n", "without a port"),
            ("[upstream x]\nserver = a:1 backup\n    b:1\nip_hash = on\n", "backup cannot be used with ip_hash"),
            (
                "[upstream x]\nserver = a:1\nhealth_check = fial=1\n",
                '"fial=1": is no known parameter; did you mean fails=?',
            ),
            ("[upstream x]\nserver = unix:/a\nhealth_check = port=5\n", "port= cannot be used with a unix socket"),
            (
                "[upstream x]\nserver = a:1\nhealth_check = protocol=lmtp\n",
                "there is no [server] with the protocol lmtp",
            ),
            ("[upstream x]\nserver = a:1\nhash = $what\n", "the variable $what does not exist"),
            ("[upstream x]\nserver = a:1\n[upstream X]\nserver = a:1\n", "in upper and lower case only"),
            ("[geo x]\n10.0.0.0/33 = y\n", "[geo x] 10.0.0.0/33 = y: must be an address or a network"),
            ("[geo x]\n10.0.0.1/8 = y\n10.0.0.0/8 = z\n", "is the same network as"),
            ("[geo user]\ndefault = y\n", "$user exists already"),
            ("[map x]\na = b\n", "[map x] source: is missing"),
            ("[map x]\nsource = $user\n~( = b\n", "is not a regular expression"),
            ("[map x]\nsource = $user\na*b = c\n", "may have a * only as"),
            ("[map x]\nsource = $y\n", "the variable $y does not exist"),
            ("[map x]\nsource = $y\n[map y]\nsource = $x\n", "depends on $x itself"),
        ):
            self.assertIn(expected, self.problems("192.0.2.1:110", text), text)


class ForgottenTests(SynchronousTestCase):
    """Servers outside of groups, of which an authentication service names any number."""

    def test_same(self) -> None:
        """When servers are forgotten, no place goes on with what was known: orders would not reach it."""
        known, backend = upstreams(), Backend("192.0.2.77", 110)
        first, second = (placesFor(MemoryReactorClock(), known) for _ in range(2))
        request = requestFor("pop3")

        def login(places: Places, backend: Backend) -> Peer | None:
            (place,) = places.of(routeTo(backend), request)
            assert isinstance(place, Place)
            place.ended()
            return place.peer

        login(first, backend)
        for number in range(1030):
            login(second, Backend("192.0.2.78", 1 + number))
        self.assertIs(login(first, backend), known.lone(backend))
