# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations in IMAP4, except those that all protocols have."""

from __future__ import annotations

from mailgate.test.integration.conversation import TLS, Raw, b64, talk
from mailgate.test.integration.scripted import ACCEPT

__all__ = ["CONVERSATIONS"]

LOGIN = "a LOGIN alice secret"
PLAIN = b64("\0alice\0secret")
FOUND = f"{ACCEPT}\nAuth-Pass: found"
REFUSE_LATER = "Auth-Status: Invalid login or password\nAuth-Wait: 1"

CONVERSATIONS = (
    # Capabilities, in each state of TLS.
    talk("imap capability", "imap", "a CAPABILITY"),
    talk("imap capability default", "imap-default", "a capability"),
    talk("imap capability login", "imap-login", "a CAPABILITY"),
    talk("imap capability cram-md5", "imap-cram", "a CAPABILITY"),
    talk("imap capability words", "imap-words", "a CAPABILITY"),
    talk("imap capability before tls", "imap-starttls", "a CAPABILITY"),
    talk("imap capability tls only", "imap-only", "a CAPABILITY"),
    talk("imap capability behind starttls", "imap-starttls", "a STARTTLS", TLS, "a CAPABILITY"),
    talk("imap capability behind starttls only", "imap-only", "a STARTTLS", TLS, "a CAPABILITY"),
    talk("imap capability ssl", "imap-ssl", "a CAPABILITY"),
    talk("imap capability arguments", "imap", "a CAPABILITY x y z", "a CAPABILITY w x y z"),
    # STARTTLS.
    talk("imap starttls", "imap-starttls", "a STARTTLS", TLS, LOGIN),
    talk("imap starttls arguments", "imap-starttls", "a starttls now", TLS, LOGIN),
    talk("imap starttls twice", "imap-starttls", "a STARTTLS", TLS, "a STARTTLS", LOGIN),
    talk("imap starttls not offered", "imap", "a STARTTLS", LOGIN),
    talk("imap starttls ssl", "imap-ssl", "a STARTTLS", LOGIN),
    talk("imap starttls injection", "imap-starttls", Raw("a STARTTLS\r\nb LOGIN alice secret\r\n"), TLS, "c NOOP"),
    talk("imap before tls only", "imap-only", LOGIN, "b AUTHENTICATE PLAIN", "c NOOP", "d LOGOUT"),
    talk("imap before tls only literal", "imap-only", "a LOGIN {5}", "b NOOP"),
    talk("imap tls only", "imap-only", "a STARTTLS", TLS, LOGIN),
    talk("imap newest tls", "imap-newest", LOGIN),
    # LOGIN and its strings.
    talk("imap login", "imap", LOGIN),
    talk("imap login lower case", "imap", "a login alice secret"),
    talk("imap login bare lf", "imap", Raw("a LOGIN alice secret\n")),
    talk("imap login blanks", "imap", "a   LOGIN   alice    secret  "),
    talk("imap login quoted", "imap", 'a LOGIN "alice liddell" "white rabbit "'),
    talk("imap login escapes", "imap", r'a LOGIN "al\\ice" "se\"cret"'),
    talk("imap login odd escapes", "imap", r'a LOGIN "al\ice" "s\ecret"'),
    talk("imap login atoms", "imap", r'a LOGIN al"ice(% se\cret'),
    talk("imap login adjacent", "imap", 'a LOGIN "alice""secret"'),
    talk("imap login quote unended", "imap", 'a LOGIN "alice" "secret'),
    talk("imap login empty quoted", "imap", 'a LOGIN alice ""'),
    talk("imap login nameless", "imap", 'a LOGIN "" secret'),
    talk("imap login literals", "imap", "a LOGIN {5}", Raw("alice {6}\r\n"), Raw("secret\r\n")),
    talk("imap login literal of blanks", "imap", "a LOGIN alice {7}", Raw("sec ret\r\n")),
    talk("imap login literal with line", "imap", "a LOGIN alice {8}", Raw("sec\r\nret\r\n")),
    talk("imap login literal of quotes", "imap", "a LOGIN {7}", Raw('al"i\\ce secret\r\n')),
    talk("imap login literals at once", "imap", Raw("a LOGIN {5}\r\nalice {6}\r\nsecret\r\n", 3)),
    talk("imap login non-synchronizing", "imap", Raw("a LOGIN {5+}\r\nalice {6+}\r\nsecret\r\n")),
    talk("imap login literal empty", "imap", "a LOGIN alice {0}", Raw("\r\n")),
    talk("imap login literal and more", "imap", "a LOGIN {5}", Raw("alicesecret\r\n")),
    talk("imap login literal wrong", "imap", "a LOGIN {x}", "b LOGIN {5", "c LOGIN {5}x", "d LOGIN {5-}"),
    talk("imap login literal too long", "imap", "a LOGIN {5000}", Raw("x" * 5000 + "\r\n")),
    talk("imap login literal bare lf", "imap", Raw("a LOGIN alice {6}\n"), Raw("secret\n")),
    talk("imap login escaped", "imap", "a LOGIN a%20b+c=d 100%"),
    talk("imap login eight bits", "imap", "a LOGIN ren\xc3\xa9e \xe9t\xe9\x7f\x01"),
    talk("imap login tab", "imap", "a LOGIN al\tice \tsecret"),
    talk("imap login nul", "imap", "a LOGIN al\0ice secret"),
    talk("imap login cr", "imap", Raw("a LOGIN al\rice secret\r\n"), "b NOOP"),
    talk("imap login arguments", "imap", "a LOGIN", "b LOGIN alice", "c LOGIN alice secret more", "d LOGIN a b c d"),
    talk("imap login unlisted command", "imap-cram", LOGIN),
    talk("imap login list is login", "imap-login", LOGIN),
    talk("imap login over tls", "imap-ssl", LOGIN),
    talk("imap login configured headers", "imap-headers", LOGIN),
    # Tags.
    talk("imap tag", "imap", "A1.b-c_D LOGIN alice secret"),
    talk("imap tag long", "imap", "a" * 32 + " NOOP"),
    talk("imap tag too long", "imap", "a" * 33 + " NOOP"),
    talk("imap tag of other characters", "imap", "a/b NOOP", "a:b NOOP", "#1 NOOP"),
    talk("imap tag forbidden", "imap", "+ NOOP", "* NOOP", "a( NOOP", "a% NOOP"),
    talk("imap tag missing", "imap", " NOOP"),
    talk("imap tag alone", "imap", "a", "b ", "NOOP"),
    talk("imap empty line", "imap", "", Raw("\n")),
    # Invalid commands, and too many of them.
    talk("imap noop", "imap", "a NOOP", "b noop x y z", "c NOOP w x y z"),
    talk("imap noop literal", "imap", "a NOOP {3}", Raw("xyz\r\n")),
    talk("imap id", "imap", "a ID NIL"),
    talk("imap id list", "imap", 'a ID ("name" "client" "version" "1")'),
    talk("imap later commands", "imap", "a SELECT INBOX", "b IDLE", "c ENABLE UTF8=ACCEPT", "d NAMESPACE"),
    talk("imap unknown", "imap", "a XYZZY", "b NOOPS", "c NOO", "d NOOP1"),
    talk("imap unknown literal", "imap", "a XYZZY {3}", "b NOOP"),
    talk("imap unknown non-synchronizing", "imap", Raw("a XYZZY {3+}\r\nabc\r\n"), "b NOOP"),
    talk("imap errors", "imap", "a A", "b B", "c C", "d D", "e E"),
    talk("imap two errors", "imap-errors", "a A", "b B"),
    talk("imap errors pipelined", "imap-errors", Raw("a A\r\nb NOOP\r\nc B\r\nd NOOP\r\n", 4)),
    talk("imap wrong is no error", "imap-errors", "a LOGIN", "b STARTTLS", "c AUTHENTICATE X", "d LOGIN x", "e NOOP"),
    talk("imap too long", "imap-small", "a LOGIN alice " + "s" * 200),
    talk("imap too long without tag", "imap-small", "s" * 200),
    talk("imap too long for the default", "imap", "a LOGIN alice " + "s" * 5000),
    talk("imap too long literal", "imap-small", "a LOGIN alice {200}", Raw("x" * 200 + "\r\n")),
    talk("imap logout", "imap", "a LOGOUT"),
    talk("imap logout arguments", "imap", "a logout now"),
    talk("imap logout pipelined", "imap", Raw("a NOOP\r\nb LOGOUT\r\nc NOOP\r\n", 2)),
    # Pipelining, and commands after the login.
    talk("imap pipelined", "imap", Raw("a LOGIN alice secret\r\nb LIST\r\nc SELECT INBOX\r\n", 3)),
    talk("imap pipelined capability", "imap", Raw("a CAPABILITY\r\nb NOOP\r\nc LOGIN alice secret\r\nd CHECK\r\n", 4)),
    talk("imap pipelined much", "imap", Raw(f"{LOGIN}\r\n" + "b NOOP\r\n" * 700, 701)),
    talk("imap pipelined sasl", "imap", Raw(f"a AUTHENTICATE PLAIN\r\n{PLAIN}\r\nb LIST\r\n", 3)),
    talk("imap logout at the backend", "imap", LOGIN, "b CHECK", "c LOGOUT", backend={"LOGOUT": "* BYE\nTAG OK"}),
    talk("imap untagged before the login", "imap", LOGIN, backend={"LOGIN": "* CAPABILITY IMAP4rev1\nTAG OK in"}),
    talk("imap two untagged", "imap", LOGIN, backend={"LOGIN": "* CAPABILITY IMAP4rev1\n* OK [X] y\nTAG OK in"}),
    talk("imap untagged behind the login", "imap", LOGIN, backend={"LOGIN": "TAG OK in\n* 5 EXISTS"}),
    talk("imap login lower case ok", "imap", LOGIN, backend={"LOGIN": "TAG ok in"}),
    talk("imap short continuation", "imap", LOGIN, backend={"LITERAL": "+ "}),
    # Commands after a refusal.
    talk("imap refused empty line", "imap", LOGIN, "%%%", "b NOOP", auth=REFUSE_LATER),
    # Failures of the backend.
    talk("imap backend refuses", "imap", LOGIN, backend={"LOGIN": "TAG NO [AUTHENTICATIONFAILED] no"}),
    talk("imap backend says bad", "imap", LOGIN, backend={"LOGIN": "TAG BAD what?"}),
    talk("imap backend refuses aloud", "imap-pass", LOGIN, backend={"LOGIN": "TAG NO [AUTHENTICATIONFAILED] no"}),
    talk("imap backend says bad aloud", "imap-pass", LOGIN, backend={"LOGIN": "TAG BAD what?"}),
    talk("imap backend untagged refusal aloud", "imap-pass", LOGIN, backend={"LOGIN": "* BYE no\nTAG NO no"}),
    talk("imap backend greets badly", "imap", LOGIN, backend={"GREETING": "* BYE go away"}),
    talk("imap backend greets badly aloud", "imap-pass", LOGIN, backend={"GREETING": "* BYE go away"}),
    talk("imap backend closes", "imap", LOGIN, backend={"GREETING": ""}),
    talk("imap backend closes late aloud", "imap-pass", LOGIN, backend={"LOGIN": ""}),
    talk("imap backend says too much", "imap", LOGIN, backend={"LOGIN": "TAG OK " + "x" * 5000}),
    talk("imap backend preauth", "imap-pass", LOGIN, backend={"GREETING": "* PREAUTH welcome"}),
)
