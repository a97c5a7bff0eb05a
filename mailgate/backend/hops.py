# -*- test-case-name: mailgate.test.backend.test_hops -*-
"""
How gateways that lead back to each other are found out: each tells the next through how many the login may still go,
one less than it has been told itself, and the last one refuses it.

Dovecot has C{x-proxy-ttl} in ID and C{TTL} in XCLIENT for that, and starts with 7. A gateway of ours offers its clients
no XCLIENT, in no protocol, and its greeting in IMAP lists ID only if it has learned that from its own backends. So a
backend that greets as we do is told in a command of its own: IMAP's ID, C{NOOP x-proxy-ttl=6} in POP3 and SMTP, and
C{NOOP "x-proxy-ttl=6"} in ManageSieve. nginx greets with the same words, and takes this NOOP for any other; its BAD to
ID harms nothing. No other server is sent the command.

A client that is no gateway may send it, too: that lowers its own number, and nothing else.
"""

from __future__ import annotations

import re

__all__ = [
    "IMAP_GREETING",
    "POP3_GREETING",
    "SIEVE_GREETING",
    "SMTP_GREETING",
    "hopsAfter",
    "noopWithHops",
    "parseHops",
]

IMAP_GREETING = re.compile(rb"\* OK (?:\[CAPABILITY [^]\r\n]*\] )?IMAP4 ready\r\n")
POP3_GREETING = re.compile(rb"\+OK POP3 ready(?: <[!-~]+>)?\r\n")
SMTP_GREETING = re.compile(rb"220 [!-~]+ ESMTP ready\r\n")
SIEVE_GREETING = re.compile(rb'OK "ManageSieve ready"\r\n')
"""The greetings of our own servers, and nginx's, whole. Of ManageSieve it is the end of the list."""

_NAME = b"x-proxy-ttl="
_COUNT = re.compile(rb"[0-9]{1,3}")


def noopWithHops(hops: int) -> bytes:
    """The command by which a POP3 or SMTP backend that greets as we do is told C{hops}, without a line end."""
    return b"NOOP " + _NAME + b"%d" % hops


def hopsAfter(argument: bytes) -> bytes:
    """The number in the C{argument} of a NOOP that L{noopWithHops} has made; empty if it is another."""
    return argument[len(_NAME) :] if argument.lower().startswith(_NAME) else b""


def parseHops(said: bytes) -> int | None:
    """The number that was C{said}; L{None} if it is none."""
    return int(said) if _COUNT.fullmatch(said) else None
