# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations about the mechanisms of SASL, the same in all protocols."""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.test.integration.conversation import NOOP, TLS, Conversation, Raw, b64, talk
from mailgate.test.integration.scripted import ACCEPT

__all__ = ["CONVERSATIONS"]

DIGEST = "0123456789abcdef0123456789abcdef"
FOUND = f"{ACCEPT}\nAuth-Pass: found"

PLAIN = b64("\0alice\0secret")
USER = b64("alice")
PASSWORD = b64("secret")
CRAM = b64(f"alice {DIGEST}")

COMMANDS = {"imap": "a AUTHENTICATE ", "pop3": "AUTH ", "smtp": "AUTH "}


def _plain(protocol: str, auth: str) -> Iterator[Conversation]:
    start = auth + "PLAIN"
    yield talk(f"{protocol} plain", protocol, start, PLAIN)
    yield talk(f"{protocol} plain initial response", protocol, f"{start} {PLAIN}")
    yield talk(f"{protocol} plain default", f"{protocol}-default", f"{start} {PLAIN}")
    yield talk(f"{protocol} plain lower case", protocol, start.lower(), PLAIN)
    yield talk(f"{protocol} plain authorization identity", protocol, start, b64("bob\0alice\0secret"))
    yield talk(f"{protocol} plain no nul", protocol, start, USER, f"{start} {USER}")
    yield talk(f"{protocol} plain one nul", protocol, start, b64("\0alice"), f"{start} {b64(chr(0) + 'alice')}")
    yield talk(f"{protocol} plain empty user", protocol, start, b64("\0\0secret"))
    yield talk(f"{protocol} plain empty password", protocol, start, b64("\0alice\0"))
    yield talk(f"{protocol} plain all empty", protocol, start, b64("\0\0"))
    yield talk(f"{protocol} plain empty response", protocol, start, "", NOOP[protocol], f"{start} =")
    yield talk(f"{protocol} plain cancelled", protocol, start, "*", start, PLAIN)
    yield talk(f"{protocol} plain bad base64", protocol, start, "!!!!", f"{start} a", f"{start} {PLAIN}")
    yield talk(f"{protocol} plain without padding", protocol, start, b64("\0alice\0secrets").rstrip("="))
    yield talk(f"{protocol} plain behind padding", protocol, start, b64("\0alice\0secrets") + "!?")
    yield talk(f"{protocol} plain second word", protocol, start, f"{PLAIN} more", auth=FOUND)
    many = {"imap": 3, "pop3": 3, "smtp": 11}[protocol]
    yield talk(f"{protocol} plain many words", protocol, start, PLAIN + " more" * many, auth=FOUND)
    yield talk(f"{protocol} plain leading blank", protocol, start, f" {PLAIN}")
    yield talk(f"{protocol} plain bare lf", protocol, Raw(f"{start}\n"), Raw(f"{PLAIN}\n"))
    yield talk(f"{protocol} plain blanks", protocol, start, b64("\0alice liddell\0white rabbit "))
    yield talk(f"{protocol} plain percent", protocol, start, b64("\0a%20b\0100%"))
    yield talk(f"{protocol} plain eight bits", protocol, start, b64("\0ren\xc3\xa9e\0\xe9t\xe9\x7f\x01\t"))
    yield talk(f"{protocol} plain line end", protocol, start, b64("\0alice\0sec\r\nret"))
    yield talk(f"{protocol} plain third nul", protocol, start, b64("\0alice\0sec\0ret"))


def _login(protocol: str, auth: str) -> Iterator[Conversation]:
    start = auth + "LOGIN"
    yield talk(f"{protocol} login mechanism", protocol, start, USER, PASSWORD)
    yield talk(f"{protocol} login initial response", protocol, f"{start} {USER}", PASSWORD)
    yield talk(f"{protocol} login unlisted", f"{protocol}-default", start, USER, PASSWORD)
    yield talk(f"{protocol} login empty user", protocol, start, "", PASSWORD)
    yield talk(f"{protocol} login empty initial response", protocol, f"{start} =", PASSWORD)
    yield talk(f"{protocol} login empty password", protocol, start, USER, "")
    yield talk(f"{protocol} login cancelled", protocol, start, USER, "*", NOOP[protocol])
    yield talk(f"{protocol} login user cancelled", protocol, start, "*", NOOP[protocol])
    yield talk(f"{protocol} login bad base64", protocol, f"{start} !", start, USER, "a", start, USER, PASSWORD)
    yield talk(f"{protocol} login percent", protocol, start, b64("a b%"), b64("c d%\xff"))


def _cramMD5(protocol: str, auth: str) -> Iterator[Conversation]:
    start = auth + "CRAM-MD5"
    yield talk(f"{protocol} cram-md5", protocol, start, CRAM, auth=FOUND)
    yield talk(f"{protocol} cram-md5 without password", protocol, start, CRAM)
    yield talk(f"{protocol} cram-md5 not offered", f"{protocol}-default", start, NOOP[protocol])
    yield talk(f"{protocol} cram-md5 initial response", protocol, f"{start} {CRAM}", NOOP[protocol])
    yield talk(f"{protocol} cram-md5 cancelled", protocol, start, "*", start, CRAM, auth=FOUND)
    yield talk(f"{protocol} cram-md5 no blank", protocol, start, b64("alice" + DIGEST))
    yield talk(f"{protocol} cram-md5 short", protocol, start, b64("alice 0123"))
    yield talk(f"{protocol} cram-md5 any digest", protocol, start.lower(), b64("alice " + "z" * 32), auth=FOUND)
    yield talk(f"{protocol} cram-md5 user with blanks", protocol, start, b64(f"alice liddell {DIGEST}"), auth=FOUND)
    yield talk(f"{protocol} cram-md5 bad base64", protocol, start, "!", start, CRAM, auth=FOUND)


def _external(protocol: str, auth: str) -> Iterator[Conversation]:
    start = auth + "EXTERNAL"
    yield talk(f"{protocol} external", protocol, start, USER, auth=FOUND)
    yield talk(f"{protocol} external initial response", protocol, f"{start} {USER}", auth=FOUND)
    yield talk(f"{protocol} external empty", protocol, f"{start} =", auth=FOUND)
    yield talk(f"{protocol} external without password", protocol, start, USER)
    yield talk(f"{protocol} external not offered", f"{protocol}-default", start, NOOP[protocol])
    unlisted = f"{protocol}-default"
    yield talk(f"{protocol} external not offered initial response", unlisted, f"{start} {USER}", auth=FOUND)
    yield talk(f"{protocol} external cancelled", protocol, start, "*", f"{start} !", NOOP[protocol])


def _rest(protocol: str, auth: str) -> Iterator[Conversation]:
    yield talk(f"{protocol} mechanism unknown", protocol, auth + "GSSAPI", auth + "NTLM " + USER, auth + "SCRAM-SHA-1")
    yield talk(f"{protocol} mechanism missing", protocol, auth.strip(), auth)
    yield talk(f"{protocol} mechanism arguments", protocol, f"{auth}PLAIN {PLAIN} x", f"{auth}PLAIN {PLAIN} x y")
    yield talk(f"{protocol} mechanism blanks", protocol, f"{auth}  PLAIN   {PLAIN} ")
    start = {"imap": "a STARTTLS", "pop3": "STLS", "smtp": "STARTTLS"}[protocol]
    yield talk(f"{protocol} mechanism before tls", f"{protocol}-only", auth + "PLAIN", f"{auth}LOGIN {USER}")
    yield talk(f"{protocol} mechanism behind tls", f"{protocol}-only", start, TLS, f"{auth}PLAIN", PLAIN)
    digest = (f"{auth}CRAM-MD5", CRAM)
    yield talk(f"{protocol} cram-md5 behind tls", f"{protocol}-starttls", start, TLS, *digest, auth=FOUND)
    yield talk(f"{protocol} mechanism over tls", f"{protocol}-ssl", f"{auth}LOGIN", USER, PASSWORD)


CONVERSATIONS = tuple(
    conversation
    for protocol, auth in COMMANDS.items()
    for conversations in (_plain, _login, _cramMD5, _external, _rest)
    for conversation in conversations(protocol, auth)
)
