"""
The output of C{mailgate check} about SMTP servers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.directives import ConfigurationError
from mailgate.protocols.smtp.settings import SMTPSettings

HTTP, PASS = "auth_http = http://127.0.0.1/", "proxy_pass = 127.0.0.1:2525"


def read(*lines: str, mail: str = HTTP, protocol: str = "smtp") -> GatewaySettings:
    """The settings of a server with C{lines}. C{mail} are the lines of C{[mail]}."""
    announced = ("smtp_capabilities = 8BITMIME",) if protocol == "smtp" and not _announces(lines) else ()
    server = "\n".join(("listen = 127.0.0.1:9", f"protocol = {protocol}", *announced, *lines))
    return parse(f"[mail]\n{mail}\n[server mx]\n{server}\n")


def _announces(lines: tuple[str, ...]) -> bool:
    return any(line.startswith("smtp_capabilities") for line in lines)


class WarningTests(SynchronousTestCase):
    """Warnings: the gateway starts."""

    def warnings(self, *lines: str, mail: str = HTTP) -> list[tuple[str, str]]:
        """The options with warnings, and the warnings."""
        return [(warning.option, warning.message) for warning in read(*lines, mail=mail).warnings]

    def test_firstRecipient(self) -> None:
        """With smtp_auth none the backend checks all recipients but the first. Each such server has the warning."""
        for auth in ("none", "plain none"):
            ((option, message),) = self.warnings(f"smtp_auth = {auth}")
            self.assertEqual(option, "smtp_auth")
            self.assertIn("auth_http checks only the first recipient of a connection", message)
            self.assertIn("backend must check every recipient", message)
        self.assertEqual(self.warnings("smtp_auth = plain"), [])
        ((_, message),) = self.warnings("smtp_auth = none", mail=PASS)
        self.assertIn("checks no recipient", message)

    def test_ownAddress(self) -> None:
        """If the gateway sends XCLIENT, the warning names the address that the backend should trust."""
        for isSaid, lines in ((True, ()), (True, ("xclient = on",)), (False, ("proxy_protocol = v2",))):
            ((_, message),) = self.warnings("smtp_auth = none", *lines)
            self.assertEqual("only the gateway's own address in its smtpd_authorized_xclient_hosts" in message, isSaid)

    def test_place(self) -> None:
        """The warning names the place of the option; for [mail] it comes once."""
        text = f"[mail]\n{HTTP}\nsmtp_auth = none\n[server a]\nlisten = 25\n[server b]\nlisten = 587\n"
        (warning,) = parse(text).warnings
        self.assertIn("[mail] smtp_auth: with none ", str(warning))
        servers = [f"[server {name}]\nlisten = {port}\nsmtp_auth = none\n" for name, port in (("a", 25), ("b", 587))]
        warnings = parse(f"[mail]\n{HTTP}\n{''.join(servers)}").warnings
        self.assertEqual([warning.section for warning in warnings], ["server a", "server b"])

    def test_takenForTheGateway(self) -> None:
        """With xclient off and no PROXY header, clients of smtp_auth none have the rights of our address."""
        for isWarned, lines in (
            (True, ("smtp_auth = none", "xclient = off")),
            (True, ("smtp_auth = none plain", "xclient = off", "proxy_protocol = off")),
            (False, ("smtp_auth = none", "xclient = off", "proxy_protocol = on")),
            (False, ("smtp_auth = none", "xclient = off", "proxy_protocol = v2")),
            (False, ("smtp_auth = none", "xclient = auto")),
            (False, ("smtp_auth = none", "xclient = on")),
            (False, ("smtp_auth = plain", "xclient = off")),
        ):
            found = dict(self.warnings(*lines))
            self.assertEqual("xclient" in found, isWarned, lines)
            if isWarned:
                self.assertIn(
                    "smtp_auth = none all rights that the backend grants to the gateway's address", found["xclient"]
                )

    def test_binary(self) -> None:
        """BINARYMIME without CHUNKING causes a warning."""
        self.assertEqual(self.warnings("smtp_capabilities =", " CHUNKING", " BINARYMIME"), [])
        self.assertEqual(self.warnings("smtp_capabilities = CHUNKING"), [])
        ((option, message),) = self.warnings("smtp_capabilities = binarymime")
        self.assertEqual(option, "smtp_capabilities")
        self.assertIn("BINARYMIME requires CHUNKING", message)

    def test_otherProtocols(self) -> None:
        """SMTP directives in [mail] have no effect on an IMAP server."""
        mail = f"{HTTP}\nsmtp_auth = none\nxclient = on\nproxy_protocol = on"
        warnings = read(mail=mail, protocol="imap").warnings
        reason = "has no effect: no server that inherits it has protocol = smtp"
        self.assertEqual([warning.option for warning in warnings], ["smtp_auth", "xclient"])
        self.assertEqual({warning.message for warning in warnings}, {reason})


class ProblemTests(SynchronousTestCase):
    """Errors: the gateway does not start."""

    def test_headerAndXCLIENT(self) -> None:
        """XCLIENT on with a PROXY header: the message names both options and the place."""
        for version in ("on", "v2"):
            error = self.assertRaises(ConfigurationError, read, "xclient = on", f"proxy_protocol = {version}")
            (problem,) = error.problems
            self.assertEqual((problem.section, problem.option), ("server mx", "xclient"))
            self.assertIn("proxy_protocol", problem.message)
            mail = f"{HTTP}\nproxy_protocol = {version}\nxclient = on"
            (problem,) = self.assertRaises(ConfigurationError, read, mail=mail).problems
            self.assertEqual((problem.section, problem.option), ("mail", "xclient"))
            self.assertNotIn("mx", problem.message)
            mail = f"{HTTP}\nxclient = on"
            (problem,) = self.assertRaises(ConfigurationError, read, f"proxy_protocol = {version}", mail=mail).problems
            self.assertEqual((problem.section, problem.option), ("mail", "xclient"))
            self.assertIn("proxy_protocol of server mx", problem.message)
            for xclient in ("auto", "off"):
                settings = read(f"xclient = {xclient}", f"proxy_protocol = {version}")
                self.assertEqual(settings.servers[0][SMTPSettings].xclient, xclient)
        self.assertEqual(read("xclient = on", "proxy_protocol = off").servers[0][SMTPSettings].xclient, "on")
