"""
Tests of L{mailgate.limits.settings}.
"""

from __future__ import annotations

import os

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.limits.policy import ConnectionPolicy, LoginPolicy, Mode, Rate
from mailgate.limits.settings import LimitSettings
from mailgate.limits.values import exempt
from mailgate.login import Client, Credentials, Envelope, LoginRequest, Method

SERVER = "[server imap]\nlisten = 127.0.0.1:143\nauth_http = http://127.0.0.1:9/auth\n"
OTHER = "[server pop3]\nlisten = 127.0.0.1:110\nauth_http = http://127.0.0.1:9/auth\n"


def request(host: str, user: bytes = b"joe") -> LoginRequest:
    """Return a login of C{user} from C{host}."""
    return LoginRequest("imap", Credentials(Method.PLAIN, user, b"sesame"), Client(host, 40123))


class ClientTests(SynchronousTestCase):
    """The client that a login counts for in a queue."""

    def test_address(self) -> None:
        """The networks that are exempt by default do not change that: their logins queue by address."""
        settings = LimitSettings()
        self.assertEqual(settings.clientOf(request("192.0.2.7")), "192.0.2.7")
        self.assertEqual(settings.clientOf(request("192.0.2.7", b"ann")), "192.0.2.7")
        self.assertEqual(settings.clientOf(request("2001:db8::7")), "2001:db8::/64")
        self.assertEqual(settings.clientOf(request("127.0.0.1")), "127.0.0.1")

    def test_exempt(self) -> None:
        """From an exempt network each user counts as a client, in any case of letters. The key is never an address."""
        settings = LimitSettings(exempt("192.0.2.0/24", "/"))
        self.assertEqual(settings.clientOf(request("192.0.2.7", b"Joe")), settings.clientOf(request("192.0.2.8")))
        self.assertNotEqual(settings.clientOf(request("192.0.2.7")), settings.clientOf(request("192.0.2.7", b"ann")))
        self.assertEqual(settings.clientOf(request("198.51.100.7")), "198.51.100.7")
        self.assertNotEqual(settings.clientOf(request("192.0.2.7", b"198.51.100.7")), "198.51.100.7")

    def test_exemptRecipients(self) -> None:
        """With smtp_auth = none there is no user, so each recipient from an exempt network counts as a client."""
        settings = LimitSettings(exempt("192.0.2.0/24", "/"))

        def of(host: str, recipient: bytes) -> str:
            envelope = Envelope(b"mx.test", True, b"MAIL FROM:<a@example.org>", b"RCPT TO:<%b@example.com>" % recipient)
            return settings.clientOf(
                LoginRequest("smtp", Credentials(Method.NONE), Client(host, 40123), envelope=envelope)
            )

        self.assertNotEqual(of("192.0.2.7", b"joe"), of("192.0.2.7", b"ann"))
        self.assertEqual(of("192.0.2.7", b"joe"), of("192.0.2.8", b"Joe"))
        self.assertEqual(of("198.51.100.7", b"joe"), of("198.51.100.7", b"ann"))


class PolicyTests(SynchronousTestCase):
    """The policies that a configuration yields."""

    def test_defaults(self) -> None:
        """Without a directive they are the defaults of the policies, with loopback exempt."""
        settings = parse(SERVER)
        limits = settings.servers[0][LimitSettings]
        self.assertEqual(evolve(limits.connectionPolicy(), exempt=()), ConnectionPolicy())
        self.assertEqual([str(each) for each in limits.connectionPolicy().exempt], ["127.0.0.0/8", "::1/128"])
        self.assertEqual(limits.loginPolicy(), LoginPolicy())
        self.assertEqual((limits.loginMode, limits.isAnyOn), (Mode.ON, True))
        self.assertEqual(settings[LimitSettings], limits)
        self.assertEqual(settings.warnings, ())

    def test_serversOwn(self) -> None:
        """A list of a server replaces that of [mail] as a whole."""
        lines = "limit_conn =\n    user 9\nlimit_req = off\nlimit_req_dry_run = off\nlimit_login = dry_run\n"
        settings = parse(f"[mail]\nlimit_conn = address 77\n{SERVER}{lines}{OTHER}")
        own, other = (server[LimitSettings].connectionPolicy() for server in settings.servers)
        self.assertEqual((own.address, own.user, own.userAddress, own.server), (0, 9, 0, 0))
        self.assertEqual((own.connection, own.handshake, own.login), (None, None, None))
        self.assertEqual((other.address, other.user, other.login), (77, 0, Rate(1.0, 30, True)))
        self.assertEqual([server[LimitSettings].loginMode for server in settings.servers], [Mode.DRY_RUN, Mode.ON])

    def test_common(self) -> None:
        """What is one for the gateway is the same in all servers and in the whole configuration."""
        mail = "limit_login_pair = block=12 delay=3\nlimit_login_user = off\nlimit_memory = 32m\nstate_file = s\n"
        settings = parse(f"[mail]\n{mail}{SERVER}{OTHER}", "/etc/mailgate/gateway.ini")
        self.assertEqual(settings.servers[0][LimitSettings], settings[LimitSettings])
        self.assertEqual(settings.servers[1][LimitSettings], settings[LimitSettings])
        self.assertEqual(settings[LimitSettings].loginPolicy(), LoginPolicy(pairBlock=12, pairDelay=3, userSlow=0))
        self.assertEqual(settings[LimitSettings].memory, 32 * 1024 * 1024)
        self.assertEqual(settings[LimitSettings].stateFile, "/etc/mailgate/s")
        self.assertEqual(parse(f"[mail]\nstate_file = off\n{SERVER}")[LimitSettings].stateFile, "")

    def test_modes(self) -> None:
        """Each sort of limit has its own dry run."""
        lines = "limit_conn_dry_run = on\nlimit_early_drop = 10:30:100 dry_run\n"
        policy = parse(SERVER + lines).servers[0][LimitSettings].connectionPolicy()
        self.assertEqual((policy.connMode, policy.reqMode, policy.dropMode), (Mode.DRY_RUN, Mode.ON, Mode.DRY_RUN))
        self.assertEqual((policy.dropFrom, policy.dropShare, policy.dropAll), (10, 0.3, 100))

    def test_dryRuns(self) -> None:
        """Each directive of rules has its own, which the others do not inherit."""
        for name in ("pair", "address", "network", "user"):
            policy = parse(f"[mail]\nlimit_login_{name} = dry_run\n{SERVER}")[LimitSettings].loginPolicy()
            self.assertEqual(policy, LoginPolicy(**{f"{name}DryRun": True}))

    def test_allOff(self) -> None:
        """A server can have no limit at all."""
        off = "limit_conn = off\nlimit_req = off\nlimit_early_drop = off\nlimit_login = off\n"
        self.assertFalse(parse(SERVER + off).servers[0][LimitSettings].isAnyOn)
        for line in off.splitlines(True):
            self.assertTrue(parse(SERVER + off.replace(line, "")).servers[0][LimitSettings].isAnyOn, line)


WARNED = (
    ("limit_conn = address 9", "limit_conn = address 9: is low: a mail program opens up to 5 connections at once"),
    ("limit_conn = user_address 4", "limit_conn = user_address 4: is low: a mail program keeps 5 sessions or more"),
    (
        "limit_conn =\n    user 20\n    user_address 20",
        "limit_conn = user_address 20: has no effect: user is not higher",
    ),
    ("limit_exempt = ::/0", "limit_exempt = ::/0: has all clients of IPv6 in it: no limit by address holds for them"),
    ("access = allow 10.0.0.0/8", "access: denies no client; add deny all as the last line"),
    ("access =\n    deny all\n    allow 10.0.0.0/8", "access: has lines behind all, which have no effect"),
)
"""Lines of a server, and how the only warning about them begins."""

REFUSED = (
    ("limit_login_pair = time=5h", "limit_login_pair: time=5h is longer than max=4h"),
    ("limit_login_address = max=1m", "limit_login_address: time=30m is longer than max=1m"),
    ("limit_login_delay = 20s", "limit_login_delay: the first delay (20s) is longer than the longest one (15s)"),
    ("limit_memory = 512k", "limit_memory = 512k: must be from 1m to 1024m"),
    ("limit_log_level = debug", "limit_log_level = debug: must be one of info, notice, warn, error"),
    ("limit_conn = adress 5", 'limit_conn = adress 5: "adress" is unknown'),
    ("limit_req = login rate=5", 'limit_req = login rate=5: "rate=5" must be a rate'),
)
"""Lines of [mail], and how the only error about them begins."""


class RemarkTests(SynchronousTestCase):
    """Mistakes and doubtful settings, with their place in the file."""

    def test_warned(self) -> None:
        """L{WARNED}: the gateway starts."""
        for lines, message in WARNED:
            (warning,) = parse(f"{SERVER}{lines}\n").warnings
            self.assertIn(f"[server imap] {message}", str(warning))

    def test_unreached(self) -> None:
        """A delay that begins when the block does never acts."""
        (warning,) = parse(f"[mail]\nlimit_login_pair = delay=10\n{SERVER}{OTHER}").warnings
        expected = "gateway.ini:2: [mail] limit_login_pair: delay=10 is not reached before block=10"
        self.assertEqual(str(warning), expected)
        (warning,) = parse(f"[mail]\nlimit_login_user = refuse=10\n{SERVER}{OTHER}").warnings
        expected = "gateway.ini:2: [mail] limit_login_user: slow=50 is not reached before refuse=10"
        self.assertEqual(str(warning), expected)

    def test_refused(self) -> None:
        """L{REFUSED}: each is reported once, however many servers inherit it."""
        for line, message in REFUSED:
            error = self.assertRaises(ConfigurationError, parse, f"[mail]\n{line}\n{SERVER}{OTHER}")
            (problem,) = error.problems
            self.assertIn(f"gateway.ini:2: [mail] {message}", str(problem))

    def test_misplaced(self) -> None:
        """A server cannot set what is one for the gateway."""
        for line in ("limit_memory = 1m", "limit_prefix = 32/64 24/48", "limit_login_pair = block=9", "state_file = x"):
            error = self.assertRaises(ConfigurationError, parse, f"{SERVER}{line}\n")
            name = line.partition(" =")[0]
            self.assertEqual(str(error), f"gateway.ini:4: [server imap] {name}: belongs in [mail]; move it there")

    def test_overwritten(self) -> None:
        """The state file must not be the configuration."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="ascii") as opened:
            opened.write(f"[mail]\nstate_file = {path}\n{SERVER}")
        with open(path, encoding="ascii") as opened:
            error = self.assertRaises(ConfigurationError, parse, opened.read(), path)
        self.assertIn("state_file", str(error))
        self.assertIn("is the configuration file itself and would be overwritten", str(error))

    def test_others(self) -> None:
        """A state file that is not one is renamed: it must not be the pid file or a log, however it is written."""
        for option, value in (("pid", "/run/gateway.pid"), ("error_log", "/run/gateway.pid info")):
            text = f"[mailgate]\n{option} = {value}\n[mail]\nstate_file = /run/../run/gateway.pid\n{SERVER}{OTHER}"
            error = self.assertRaises(ConfigurationError, parse, text)
            expected = f"is the file of {option}, too; each needs its own"
            self.assertEqual(
                str(error), f"gateway.ini:4: [mail] state_file = /run/../run/gateway.pid: {expected}", option
            )
        parse(f"[mailgate]\npid = /run/gateway.pid\n[mail]\nstate_file = /run/gateway.limits\n{SERVER}")
