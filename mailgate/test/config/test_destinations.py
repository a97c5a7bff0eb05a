"""
Tests for L{mailgate.config.destinations}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.config.destinations import cleartext, nameless
from mailgate.directives import ConfigurationError


def server(name: str, port: int, destination: str, more: str = "", protocol: str = "imap") -> str:
    """A section of a server."""
    return f"[server {name}]\nprotocol = {protocol}\nlisten = 127.0.0.1:{port}\nproxy_pass = {destination}\n{more}\n"


class LoopTests(SynchronousTestCase):
    """Servers that are their own backends."""

    def faults(self, text: str) -> list[str]:
        """What is wrong with C{text}."""
        try:
            parse(text)
        except ConfigurationError as error:
            return str(error).splitlines()
        return []

    def test_group(self) -> None:
        """A server of a group that the server uses."""
        group = "[upstream store]\nserver =\n    10.0.0.1:143\n    127.0.0.1:21143 backup\n"
        told = (
            "gateway.ini:9: [upstream store] server = 127.0.0.1:21143 backup: is an address of server imap, which uses"
            " it: a login there comes back without end"
        )
        self.assertEqual(self.faults(server("imap", 21143, "store") + group), [told])
        self.assertEqual(self.faults(server("imap", 21144, "store") + group), [])
        self.assertEqual(self.faults(server("imap", 21143, "10.0.0.2:143") + group), [], "it is not used")

    def test_rules(self) -> None:
        """One that rules may lead to."""
        rules = "[map pool]\nsource = $domain\ndefault = store\nexample.com = 127.0.0.1:21143\n"
        group = "[upstream store]\nserver = 10.0.0.1:143\n"
        (fault,) = self.faults(server("imap", 21143, "$pool") + rules + group)
        self.assertTrue(fault.startswith("gateway.ini:4: [server imap] proxy_pass = $pool: is an address of"), fault)

    def test_byOthers(self) -> None:
        """One by way of other servers; a server that only leads to another is fine."""
        first, second = server("a", 21143, "127.0.0.1:21144"), server("b", 21144, "127.0.0.1:21143")
        faults = self.faults(first + second)
        self.assertEqual(len(faults), 2)
        self.assertIn("is an address of server b, whose logins come back to server a", faults[0])
        self.assertEqual(self.faults(first + server("b", 21144, "10.0.0.1:143")), [])

    def test_once(self) -> None:
        """A server's own address is reported once."""
        self.assertEqual(len(self.faults(server("imap", 21143, "127.0.0.1:21143"))), 1)


class MistakenTableTests(SynchronousTestCase):
    """Mistakes in tables that choose a group."""

    def test_reported(self) -> None:
        """Each is reported with its line, and nothing else."""
        group = "[upstream store]\nserver = 127.0.0.1:1143\n"
        for text, line, told in (
            ("[geo a]\ndefault = store\n10.0.0.0/33 = store\n", 3, "must be an address or a network"),
            ("[map a]\nsource = $domain\ndefault = store\n~( = store\n", 4, "is not a regular expression"),
            ("[map a]\nsource = $user\ndefault = $b\n[map b]\nsource = $user\ndefault = $a\n", 2, "itself"),
        ):
            for destination in ("store", "$a"):
                error = self.assertRaises(ConfigurationError, parse, text + group + server("imap", 143, destination))
                self.assertTrue(str(error).startswith(f"gateway.ini:{line}: "), error)
                self.assertIn(told, str(error))
                self.assertNotIn("[server", str(error))


class GroupTLSTests(SynchronousTestCase):
    """Warnings about C{proxy_ssl_...} of a server before groups."""

    def warnings(self, mail: str, group: str, own: str = "", destination: str = "store") -> list[str]:
        """What is warned of with C{mail} in [mail], C{group} in [upstream store] and C{own} in [server imap]."""
        text = f"[mail]\n{mail}\n[upstream store]\nserver = 10.0.0.1:993\n{group}\n"
        settings = parse(text + server("imap", 21143, destination, own))
        return [str(warning).partition(": ")[2] for warning in settings.warnings]

    def test_ofMail(self) -> None:
        """What [mail] says has an effect by a group that uses TLS."""
        depth = "proxy_ssl_verify_depth = 3"
        for destination in ("store", "$near", "$domain"):
            near = "proxy_ssl = on\n[geo near]\ndefault = store\n"
            self.assertEqual(self.warnings(depth, near, destination=destination), [], destination)
            self.assertEqual(self.warnings("", near, depth, destination), [], destination)
        useless = "has no effect: no server that inherits it has proxy_ssl = on or starttls"
        self.assertEqual(self.warnings(depth, ""), [f"[mail] proxy_ssl_verify_depth: {useless}"])
        self.assertEqual(
            self.warnings(depth, "proxy_ssl = on", destination="10.0.0.9:143"),
            [f"[mail] proxy_ssl_verify_depth: {useless}"],
        )

    def test_ofGroup(self) -> None:
        """What a group says has an effect if it, or a server that uses it, has TLS."""
        name = "proxy_ssl_name = mail.test"
        self.assertEqual(self.warnings("proxy_ssl = on", name), [])
        self.assertEqual(self.warnings("", f"{name}\nproxy_ssl = starttls"), [])
        useless = "[upstream store] proxy_ssl_name: has no effect without proxy_ssl = on or starttls"
        self.assertEqual(self.warnings("", name), [useless])
        self.assertEqual(self.warnings("proxy_ssl = on", f"{name}\nproxy_ssl = off"), [useless])

    def test_unverified(self) -> None:
        """proxy_ssl_verify = off is warned of where a group uses it, and has an effect there."""
        (warning,) = self.warnings("proxy_ssl_verify = off", "proxy_ssl = on")
        self.assertIn("[mail] proxy_ssl_verify = off: lets any host", warning)
        self.assertEqual(self.warnings("proxy_ssl_verify = off", "proxy_ssl = on\nproxy_ssl_verify = on"), [])
        (warning,) = self.warnings("proxy_ssl = on", "proxy_ssl_verify = off")
        self.assertIn("[upstream store] proxy_ssl_verify = off: lets any host", warning)
        trusted = "proxy_ssl_verify = off\nproxy_ssl_verify_depth = 3"
        self.assertEqual(self.warnings(trusted, "proxy_ssl = on\nproxy_ssl_verify = on"), [])

    def test_mistakes(self) -> None:
        """What only a group would use is checked too."""
        error = self.assertRaises(ConfigurationError, self.warnings, "proxy_ssl_ciphers = NONSENSE", "proxy_ssl = on")
        self.assertIn("gateway.ini:2: [mail] proxy_ssl_ciphers = NONSENSE", str(error))


class NamelessTests(SynchronousTestCase):
    """Unix sockets whose certificates have no name."""

    def test_warned(self) -> None:
        """One is warned of where TLS is verified, for no name."""
        told = "has no host name to verify its certificate against: set proxy_ssl_name"
        text = server("imap", 21143, "unix:/run/imap", "proxy_ssl = on")
        self.assertEqual(
            [str(each) for each in nameless(parse(text))],
            [f"gateway.ini:4: [server imap] proxy_pass = unix:/run/imap: {told}"],
        )
        group = "[upstream store]\nserver = unix:/run/imap {}\nproxy_ssl = on\n{}\n"
        for line, more, count in (("", "", 1), ("name=a.test", "", 0), ("", "proxy_ssl_verify = off", 0)):
            settings = parse(group.format(line, more) + server("imap", 21143, "store"))
            self.assertEqual(len(list(nameless(settings))), count, (line, more))


class CleartextTests(SynchronousTestCase):
    """Passwords that cross to another host in the clear."""

    def warnings(self, text: str) -> list[str]:
        """What is warned of in C{text}."""
        return [str(problem) for problem in cleartext(parse(text))]

    def isWarned(self, destination: str, more: str = "", protocol: str = "imap") -> bool:
        """Whether that C{destination} is warned of."""
        return self.warnings(server("mail", 21143, destination, more, protocol)) != []

    def test_message(self) -> None:
        """The warning names the place, and what to do."""
        told = "is sent passwords in the clear over the network: set proxy_ssl = on or starttls"
        self.assertEqual(
            self.warnings(server("imap", 21143, "10.0.0.1:143")),
            [f"gateway.ini:4: [server imap] proxy_pass = 10.0.0.1:143: {told}"],
        )
        group = "[upstream store]\nserver =\n    10.0.0.1:143\n    localhost:144\n"
        used = server("a", 21143, "store") + server("b", 21144, "store")
        warned = [f"gateway.ini:13: [upstream store] server = 10.0.0.1:143: {told}"]
        self.assertEqual(self.warnings(used + group), warned)
        self.assertEqual(self.warnings(group + server("a", 21143, "localhost:143")), [])

    def test_here(self) -> None:
        """What stays on the host does not cross."""
        for destination in ("127.0.0.1:143", "127.9.9.9:143", "[::1]:143", "localhost:143", "unix:/run/imap"):
            self.assertFalse(self.isWarned(destination), destination)
        for destination in ("192.0.2.1:143", "[2001:db8::1]:143", "store.test:143"):
            self.assertTrue(self.isWarned(destination), destination)

    def test_tls(self) -> None:
        """With TLS nothing is in the clear; a group may say its own."""
        for mode in ("on", "starttls"):
            self.assertFalse(self.isWarned("192.0.2.1:143", f"proxy_ssl = {mode}"))
        group = "[upstream store]\nserver = 192.0.2.1:143\n"
        self.assertFalse(self.isWarned("store", f"{group}proxy_ssl = on"))
        self.assertFalse(self.isWarned("store", f"proxy_ssl = on\n{group}"))
        self.assertTrue(self.isWarned("store", f"proxy_ssl = on\n{group}proxy_ssl = off"))

    def test_noPassword(self) -> None:
        """Where no password is sent none can be read."""
        judge = "auth_http = http://127.0.0.1:9000/auth\n"
        self.assertFalse(self.isWarned("192.0.2.1:143", f"{judge}proxy_auth = external"))
        self.assertTrue(self.isWarned("192.0.2.1:143", judge))
        self.assertFalse(self.isWarned("192.0.2.1:25", judge, "smtp"))
        self.assertTrue(self.isWarned("192.0.2.1:25", f"{judge}proxy_smtp_auth = on", "smtp"))
        self.assertTrue(self.isWarned("192.0.2.1:587", "", "smtp"))
        self.assertFalse(self.isWarned("192.0.2.1:25", "smtp_auth = none", "smtp"))
