# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations in POP3, except those that all protocols have."""

from __future__ import annotations

from mailgate.test.integration.conversation import TLS, Raw, b64, talk
from mailgate.test.integration.scripted import ACCEPT

__all__ = ["CONVERSATIONS"]

LOGIN = ("USER alice", "PASS secret")
PLAIN = b64("\0alice\0secret")
DIGEST = "0123456789abcdef0123456789abcdef"
FOUND = f"{ACCEPT}\nAuth-Pass: found"

CONVERSATIONS = (
    # Capabilities, in each state of TLS.
    talk("pop3 capa", "pop3", "CAPA"),
    talk("pop3 capa default", "pop3-default", "CAPA"),
    talk("pop3 capa apop alone", "pop3-apop", "CAPA", "AUTH"),
    talk("pop3 capa words", "pop3-words", "CAPA"),
    talk("pop3 capa before tls", "pop3-starttls", "CAPA"),
    talk("pop3 capa tls only", "pop3-only", "CAPA"),
    talk("pop3 capa behind stls", "pop3-starttls", "STLS", TLS, "CAPA"),
    talk("pop3 capa behind stls only", "pop3-only", "STLS", TLS, "CAPA"),
    talk("pop3 capa ssl", "pop3-ssl", "CAPA"),
    talk("pop3 capa after user", "pop3-starttls", "USER alice", "CAPA", "PASS secret"),
    talk("pop3 capa arguments", "pop3", "CAPA a b c", "CAPA a b c d"),
    talk("pop3 auth lists", "pop3", "AUTH"),
    talk("pop3 auth lists default", "pop3-default", "auth "),
    # STLS.
    talk("pop3 stls", "pop3-starttls", "STLS", TLS, *LOGIN),
    talk("pop3 stls arguments", "pop3-starttls", "stls now please", TLS, *LOGIN),
    talk("pop3 stls twice", "pop3-starttls", "STLS", TLS, "STLS", *LOGIN),
    talk("pop3 stls not offered", "pop3", "STLS", *LOGIN),
    talk("pop3 stls ssl", "pop3-ssl", "STLS", *LOGIN),
    talk("pop3 stls forgets user", "pop3-starttls", "USER alice", "STLS", "STLS", TLS, "PASS secret"),
    talk("pop3 stls injection", "pop3-starttls", Raw("STLS\r\nUSER alice\r\nPASS secret\r\n"), TLS, "NOOP"),
    talk("pop3 stls instead of pass", "pop3-starttls", "USER alice", "STLS", *LOGIN),
    talk("pop3 before tls only", "pop3-only", *LOGIN, "APOP alice x", "AUTH", "AUTH PLAIN", "NOOP", "QUIT"),
    talk("pop3 tls only", "pop3-only", "STLS", TLS, *LOGIN),
    talk("pop3 newest tls", "pop3-newest", *LOGIN),
    # USER and PASS.
    talk("pop3 login", "pop3", *LOGIN),
    talk("pop3 login lower case", "pop3", "user alice", "pass secret"),
    talk("pop3 login bare lf", "pop3", Raw("USER alice\n"), Raw("PASS secret\n")),
    talk("pop3 login blanks", "pop3", "USER   alice liddell ", "PASS  white rabbit  "),
    talk("pop3 login tab", "pop3", "USER\talice", "USER alice\tliddell", "PASS \tsecret"),
    talk("pop3 login escaped", "pop3", "USER a%20b+c=d", "PASS 100%"),
    talk("pop3 login eight bits", "pop3", "USER ren\xc3\xa9e", "PASS \xe9t\xe9\x7f\x01"),
    talk("pop3 login nul", "pop3", "USER al\0ice"),
    talk("pop3 password nul", "pop3", "USER alice", "PASS sec\0ret"),
    talk("pop3 login cr", "pop3", Raw("USER al\rice\r\n"), Raw("NOOP\r\r\n")),
    talk("pop3 user without name", "pop3", "USER", "USER ", "USER   ", "PASS x"),
    talk("pop3 empty password", "pop3", "USER alice", "PASS", "PASS secret"),
    talk("pop3 blank password", "pop3", "USER alice", "PASS ", "USER alice", "PASS   "),
    talk("pop3 unlisted", "pop3-apop", *LOGIN),
    talk("pop3 ssl login", "pop3-ssl", *LOGIN),
    talk("pop3 configured headers", "pop3-headers", *LOGIN),
    # Wrong sequences, and invalid commands.
    talk("pop3 pass first", "pop3", "PASS secret", *LOGIN),
    talk("pop3 user twice", "pop3", "USER alice", "USER bob", "PASS secret"),
    talk("pop3 noop between", "pop3", "USER alice", "NOOP", "PASS secret"),
    talk("pop3 auth between", "pop3", "USER alice", "AUTH PLAIN", "PASS secret"),
    talk("pop3 apop between", "pop3", "USER alice", "APOP alice x", "PASS secret"),
    talk("pop3 unknown between", "pop3", "USER alice", "RSET", "PASS secret"),
    talk("pop3 quit", "pop3", "QUIT"),
    talk("pop3 quit between", "pop3", "USER alice", "quit"),
    talk("pop3 quit arguments", "pop3", "QUIT now"),
    talk("pop3 noop", "pop3", "NOOP", "noop a b c", "NOOP a b c d"),
    talk("pop3 later commands", "pop3", "STAT", "LIST", "RETR 1", "UIDL"),
    talk("pop3 unknown", "pop3", "XYZZY", "QUITE", "QUI", "NOOP2"),
    talk("pop3 leading blank", "pop3", " NOOP", "NOOP "),
    talk("pop3 empty line", "pop3", "", Raw("\n")),
    talk("pop3 errors", "pop3", "A", "B", "C", "D", "E"),
    talk("pop3 two errors", "pop3-errors", "A", "B"),
    talk("pop3 errors pipelined", "pop3-errors", Raw("A\r\nNOOP\r\nB\r\nNOOP\r\n", 4)),
    talk("pop3 wrong is no error", "pop3-errors", "PASS x", "STLS", "AUTH NONE", "PASS x", "AUTH PLAIN", "*", "NOOP"),
    talk("pop3 longest line", "pop3", "USER " + "a" * 121, "PASS secret"),
    talk("pop3 too long line", "pop3", "USER " + "a" * 122),
    talk("pop3 far too long line", "pop3", "USER " + "a" * 5000),
    # APOP.
    talk("pop3 apop", "pop3", f"APOP alice {DIGEST}", auth=FOUND),
    talk("pop3 apop any digest", "pop3-apop", "apop alice nonsense", auth=FOUND),
    talk("pop3 apop without password", "pop3", f"APOP alice {DIGEST}"),
    talk("pop3 apop arguments", "pop3", "APOP", "APOP alice", "APOP alice a b", "APOP alice a b c"),
    talk("pop3 apop not offered", "pop3-default", f"APOP alice {DIGEST}"),
    talk("pop3 apop percent", "pop3", f"APOP a%b\xe9 {DIGEST}", auth=FOUND),
    # Pipelining, and commands after the login.
    talk("pop3 pipelined", "pop3", Raw("USER alice\r\nPASS secret\r\nSTAT\r\nLIST\r\n", 4)),
    talk("pop3 pipelined sasl", "pop3", Raw(f"AUTH PLAIN\r\n{PLAIN}\r\nSTAT\r\n", 3)),
    talk("pop3 pipelined noops", "pop3", Raw("NOOP\r\nCAPA\r\nNOOP\r\nQUIT\r\nNOOP\r\n", 4)),
    talk("pop3 quit at the backend", "pop3", *LOGIN, "STAT", "QUIT"),
    talk("pop3 greeting of the login", "pop3", *LOGIN, backend={"PASS": "+OK [X] welcome\x01 \xe9"}),
    # Failures of the backend.
    talk("pop3 backend refuses user", "pop3", *LOGIN, backend={"USER": "-ERR no such user"}),
    talk("pop3 backend refuses", "pop3", *LOGIN, backend={"PASS": "-ERR [AUTH] no"}),
    talk("pop3 backend refuses user aloud", "pop3-pass", *LOGIN, backend={"USER": "-ERR no such user"}),
    talk("pop3 backend refuses aloud", "pop3-pass", *LOGIN, backend={"PASS": "-ERR [AUTH] no"}),
    talk("pop3 backend greets badly", "pop3", *LOGIN, backend={"GREETING": "-ERR go away"}),
    talk("pop3 backend greets badly aloud", "pop3-pass", *LOGIN, backend={"GREETING": "-ERR go away"}),
    talk("pop3 backend closes", "pop3", *LOGIN, backend={"GREETING": ""}),
    talk("pop3 backend closes late aloud", "pop3-pass", *LOGIN, backend={"PASS": ""}),
    talk("pop3 backend says too much", "pop3", *LOGIN, backend={"PASS": "+OK " + "x" * 5000}),
    talk("pop3 backend speaks http aloud", "pop3-pass", *LOGIN, backend={"GREETING": "HTTP/1.1 400 Bad Request"}),
)
