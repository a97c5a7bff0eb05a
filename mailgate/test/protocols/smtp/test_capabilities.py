"""
What the gateway learns from the EHLO of SMTP backends.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.capabilities import BEHIND_LOGIN, learnable, without

POSTFIX = (
    b"PIPELINING",
    b"SIZE 10240000",
    b"VRFY",
    b"ETRN",
    b"STARTTLS",
    b"AUTH PLAIN LOGIN",
    b"AUTH=PLAIN LOGIN",
    b"XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT",
    b"XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT",
    b"ENHANCEDSTATUSCODES",
    b"8BITMIME",
    b"DSN",
    b"SMTPUTF8",
    b"CHUNKING",
)
EXCHANGE = (
    b"SIZE 37748736",
    b"PIPELINING",
    b"DSN",
    b"ENHANCEDSTATUSCODES",
    b"STARTTLS",
    b"X-ANONYMOUSTLS",
    b"AUTH GSSAPI NTLM LOGIN",
    b"X-EXPS GSSAPI NTLM",
    b"8BITMIME",
    b"BINARYMIME",
    b"CHUNKING",
    b"XRDST",
)
DOVECOT = (b"8BITMIME", b"AUTH PLAIN", b"BURL imap", b"CHUNKING", b"ENHANCEDSTATUSCODES", b"SIZE", b"PIPELINING")

CUTS: tuple[tuple[tuple[tuple[bytes, ...], ...], tuple[bytes, ...]], ...] = (
    ((), ()),
    (((),), ()),
    (
        (POSTFIX,),
        (
            b"PIPELINING",
            b"SIZE 10240000",
            b"ENHANCEDSTATUSCODES",
            b"8BITMIME",
            b"DSN",
            b"SMTPUTF8",
            b"CHUNKING",
        ),
    ),
    (
        (EXCHANGE,),
        (b"SIZE 37748736", b"PIPELINING", b"DSN", b"ENHANCEDSTATUSCODES", b"8BITMIME", b"BINARYMIME", b"CHUNKING"),
    ),
    (
        (POSTFIX, EXCHANGE),
        (b"PIPELINING", b"SIZE 10240000", b"ENHANCEDSTATUSCODES", b"8BITMIME", b"DSN", b"CHUNKING"),
    ),
    (
        (DOVECOT, POSTFIX),
        (b"8BITMIME", b"CHUNKING", b"ENHANCEDSTATUSCODES", b"SIZE 10240000", b"PIPELINING"),
    ),
    # The only backend without CHUNKING decides, and BINARYMIME needs CHUNKING.
    (((b"CHUNKING", b"BINARYMIME", b"DSN"), (b"BINARYMIME", b"DSN")), (b"DSN",)),
    (((b"BINARYMIME",),), ()),
    # Rights, other commands, and what the gateway does not know.
    (((b"XCLIENT ADDR", b"XFORWARD", b"VRFY", b"EXPN", b"ETRN", b"ATRN", b"HELP", b"AUTH", b"AUTH=X"),), ()),
    (((b"STARTTLS", b"CLIENTID", b"XVERP", b"8BITMIMEX", b"X-DSN", b"DSN=1"),), ()),
    # SIZE: 0 is no maximum; without a number it is unknown. A backend without SIZE refuses the parameter.
    (((b"SIZE 30",), (b"SIZE 20",), (b"size 100",)), (b"SIZE 20",)),
    (((b"SIZE 30",), (b"SIZE 0",), (b"SIZE",)), (b"SIZE 30",)),
    (((b"SIZE 0",), (b"SIZE 0",)), (b"SIZE 0",)),
    (((b"SIZE 0",), (b"SIZE",)), (b"SIZE",)),
    (((b"SIZE 30",), (b"DSN",)), ()),
    (((b"SIZE -1",),), (b"SIZE",)),
    (((b"SIZE 10M",), (b"SIZE 7",)), (b"SIZE 7",)),
    (((b"SIZE " + b"9" * 400,),), (b"SIZE",)),
    (((b"SIZE 7", b"SIZE 9"),), (b"SIZE 7",)),
    # Other parameters.
    (((b"DELIVERBY",), (b"DELIVERBY 240",), (b"DELIVERBY 60",)), (b"DELIVERBY 240",)),
    (((b"DELIVERBY 0",),), (b"DELIVERBY",)),
    (
        ((b"FUTURERELEASE 100 2030-01-01T00:00:00Z",), (b"FUTURERELEASE 200 2029-01-01T00:00:00Z",)),
        (b"FUTURERELEASE 100 2029-01-01T00:00:00Z",),
    ),
    (((b"FUTURERELEASE 100",),), ()),
    (((b"MT-PRIORITY",), (b"MT-PRIORITY",)), (b"MT-PRIORITY",)),
    (((b"MT-PRIORITY MIXER",), (b"MT-PRIORITY STANAG4406",)), ()),
    (
        ((b"LIMITS RCPTMAX=100 MAILMAX=5",), (b"LIMITS RCPTMAX=50 RCPTDOMAINMAX=1 X",)),
        (b"LIMITS RCPTMAX=50 MAILMAX=5 RCPTDOMAINMAX=1",),
    ),
    (((b"LIMITS RCPTMAX=100",), ()), ()),
    (((b"LIMITS",),), ()),
    (((b"BURL imap imap://a",), (b"BURL imap",)), (b"BURL IMAP",)),
    (((b"BURL",), (b"BURL imap",)), (b"BURL",)),
    (((b"REQUIRETLS",), (b"requiretls",)), (b"REQUIRETLS",)),
)
"""What the backends offer, and what the gateway may announce."""


class LearnableTests(SynchronousTestCase):
    """L{learnable}."""

    def test_cuts(self) -> None:
        """The gateway announces what all backends have, with parameters that all keep."""
        for offers, expected in CUTS:
            self.assertEqual(learnable(offers), expected, offers)

    def test_never(self) -> None:
        """No word that the gateway announces itself, or does not support, is learned."""
        words = [word.encode() for word in (*SMTP.own, *SMTP.unkept, "VRFY", "EXPN", "ETRN")]
        for word in words:
            self.assertEqual(learnable([(word, word + b" PLAIN")] * 2), ())

    def test_hostile(self) -> None:
        """Bytes of a backend reach clients only as numbers and names of known form."""
        lines = (b"SIZE 1\r\nXCLIENT", b"LIMITS RCPTMAX=1;X=2", b"FUTURERELEASE 1 x", b"DELIVERBY 5;x", b"DSN \0")
        self.assertEqual(learnable([(*lines, b"MT-PRIORITY \xff", b"BURL " + b"x" * 500)]), (b"DELIVERBY",))

    def test_without(self) -> None:
        """Words are left out with their parameters."""
        lines = [b"BURL imap", b"CHUNKING", b"CHUNKINGX", b"SIZE 1"]
        self.assertEqual(without(BEHIND_LOGIN, lines), [b"CHUNKINGX", b"SIZE 1"])
