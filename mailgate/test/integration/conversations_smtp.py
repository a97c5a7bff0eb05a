# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations in SMTP, except those that all protocols have."""

from __future__ import annotations

from mailgate.test.integration.conversation import TLS, Raw, b64, talk
from mailgate.test.integration.scripted import ACCEPT

__all__ = ["CONVERSATIONS"]

PLAIN = b64("\0alice\0secret")
EHLO = "EHLO client.example"
AUTH = f"AUTH PLAIN {PLAIN}"
LOGIN = (EHLO, AUTH)
MAIL = "MAIL FROM:<a@client.example> SIZE=100"
RCPT = "RCPT TO:<b@gate.example>"
FOUND = f"{ACCEPT}\nAuth-Pass: found"
REFUSE = "Auth-Status: No such user"

LOGIN_ALONE = {
    "EHLO": "250-backend\n250 AUTH LOGIN",
    "AUTH LOGIN": "334 VXNlcm5hbWU6",
    b64("alice").upper(): "334 UGFzc3dvcmQ6",
    b64("secret").upper(): "235 2.7.0 backend knows you",
    f"AUTH PLAIN {b64(chr(0) + 'alice' + chr(0) + 'secret').upper()}": "504 5.5.4 unknown mechanism",
}
"""A backend that has only the mechanism LOGIN."""

UNTOLD = {"EHLO": "250-backend\n250 AUTH PLAIN LOGIN"}
"""A backend that does not offer XCLIENT."""

CONVERSATIONS = (
    # Greetings and capabilities, in each state of TLS.
    talk("smtp ehlo", "smtp", EHLO),
    talk("smtp ehlo default", "smtp-default", "ehlo client.example"),
    talk("smtp ehlo none", "smtp-none", EHLO),
    talk("smtp ehlo mixed", "smtp-mixed", EHLO),
    talk("smtp ehlo cram-md5", "smtp-cram", EHLO),
    talk("smtp ehlo words", "smtp-words", EHLO),
    talk("smtp ehlo before tls", "smtp-starttls", EHLO),
    talk("smtp ehlo tls only", "smtp-only", EHLO),
    talk("smtp ehlo behind starttls", "smtp-starttls", EHLO, "STARTTLS", TLS, EHLO),
    talk("smtp ehlo behind starttls only", "smtp-only", EHLO, "STARTTLS", TLS, EHLO),
    talk("smtp ehlo ssl", "smtp-ssl", EHLO),
    talk("smtp helo", "smtp", "HELO client.example", "helo client.example"),
    talk("smtp ehlo arguments", "smtp", "EHLO", "EHLO a b", "HELO", "HELO a b", "EHLO  [127.0.0.1] "),
    talk("smtp ehlo odd names", "smtp", "EHLO a_b", "EHLO <x>", "HELO caf\xc3\xa9"),
    talk("smtp ehlo tab", "smtp", "EHLO a\tb", "EHLO\ta"),
    # STARTTLS.
    talk("smtp starttls", "smtp-starttls", EHLO, "STARTTLS", TLS, *LOGIN),
    talk("smtp starttls without ehlo", "smtp-starttls", "STARTTLS", TLS, AUTH),
    talk("smtp starttls arguments", "smtp-starttls", "starttls now", TLS, AUTH),
    talk("smtp starttls twice", "smtp-starttls", "STARTTLS", TLS, "STARTTLS", *LOGIN),
    talk("smtp starttls not offered", "smtp", "STARTTLS", *LOGIN),
    talk("smtp starttls ssl", "smtp-ssl", "STARTTLS", *LOGIN),
    talk("smtp starttls injection", "smtp-starttls", Raw(f"STARTTLS\r\n{EHLO}\r\nNOOP\r\n"), TLS, "RSET"),
    talk("smtp before tls only", "smtp-only", EHLO, AUTH, "AUTH", MAIL, RCPT, "NOOP", "RSET", "VRFY a", "QUIT"),
    talk("smtp tls only", "smtp-only", EHLO, "STARTTLS", TLS, *LOGIN),
    talk("smtp newest tls", "smtp-newest", *LOGIN),
    # AUTH.
    talk("smtp login", "smtp", *LOGIN),
    talk("smtp login helo", "smtp", "HELO client.example", AUTH),
    talk("smtp login without hello", "smtp", AUTH),
    talk("smtp login ehlo then helo", "smtp", EHLO, "HELO other.example", AUTH),
    talk("smtp login bare lf", "smtp", Raw("EHLO c.example\n"), Raw(f"{AUTH}\n")),
    talk("smtp auth arguments", "smtp", "AUTH", "AUTH ", "AUTH PLAIN a b", "AUTH NONE"),
    talk("smtp auth xtext", "smtp", EHLO, "AUTH PLAIN " + b64("\0a+b=c\0secret")),
    talk("smtp configured headers", "smtp-headers", *LOGIN),
    talk("smtp ssl login", "smtp-ssl", *LOGIN),
    # With and without XCLIENT.
    talk("smtp plainly", "smtp-plainly", *LOGIN, backend=UNTOLD),
    talk("smtp plainly helo", "smtp-plainly", "HELO client.example", AUTH, backend=UNTOLD),
    talk("smtp plainly without hello", "smtp-plainly", AUTH, backend=UNTOLD),
    talk("smtp plainly trusted", "smtp-plainly", *LOGIN),
    talk("smtp plainly trusted to forward", "smtp-plainly", *LOGIN, backend={"EHLO": "250-backend\n250 XFORWARD NAME"}),
    talk("smtp xclient not offered", "smtp", *LOGIN, backend={"EHLO": "250 backend"}),
    talk("smtp xclient refused", "smtp", *LOGIN, backend={"XCLIENT": "550 insufficient authorization"}),
    talk("smtp xclient 250", "smtp", *LOGIN, backend={"XCLIENT": "250 ok"}),
    # proxy_smtp_auth.
    talk("smtp proxied auth", "smtp-auth", *LOGIN),
    talk("smtp proxied auth helo", "smtp-auth", "HELO client.example", AUTH),
    talk("smtp proxied auth without hello", "smtp-auth", AUTH),
    talk("smtp proxied auth plainly", "smtp-auth-plainly", *LOGIN, backend=UNTOLD),
    talk("smtp proxied auth plainly helo", "smtp-auth-plainly", "HELO client.example", AUTH, backend=UNTOLD),
    talk("smtp proxied auth replaced", "smtp-auth", *LOGIN, auth=f"{FOUND}\nAuth-User: bob"),
    talk("smtp proxied auth odd", "smtp-auth", EHLO, "AUTH PLAIN " + b64("\0ren\xc3\xa9e b\0 100% ")),
    talk("smtp proxied auth digest", "smtp-auth", "AUTH CRAM-MD5", b64("alice " + "0" * 32), auth=FOUND),
    talk("smtp proxied auth no password", "smtp-auth", "AUTH CRAM-MD5", b64("alice " + "0" * 32)),
    talk("smtp proxied auth login alone", "smtp-auth", *LOGIN, backend=LOGIN_ALONE),
    talk("smtp proxied auth refused", "smtp-auth", *LOGIN, backend={"AUTH": "535 5.7.8 no"}),
    talk("smtp proxied auth refused aloud", "smtp-auth-pass", *LOGIN, backend={"AUTH": "535-5.7.8 no\n535 5.7.8 no"}),
    # Wrong sequences, and invalid commands.
    talk("smtp mail without login", "smtp", EHLO, MAIL, RCPT, "DATA"),
    talk("smtp noop", "smtp", "NOOP", "noop some thing"),
    talk("smtp rset", "smtp", "RSET", "rset now"),
    talk("smtp vrfy", "smtp", "VRFY alice", "EXPN list", "HELP", "HELP me", "VRFY"),
    talk("smtp unknown", "smtp", "XYZZY", "NOOPS", "BDATA 1", "DATA"),
    talk("smtp chunk", "smtp", "BDAT 0"),
    talk("smtp chunk without login", "smtp-none", "BDAT 0 LAST"),
    talk("smtp chunk before tls only", "smtp-only", "bdat 0"),
    talk("smtp empty line", "smtp", "", Raw("\n")),
    talk("smtp leading blank", "smtp", " NOOP", "NOOP "),
    talk("smtp cr", "smtp", Raw("NOOP\r\r\n"), Raw("NO\rOP\r\n")),
    talk("smtp nul", "smtp", "EHLO a\0b", "NOOP\0"),
    talk("smtp many arguments", "smtp", "NOOP 1 2 3 4 5 6 7 8 9 10 11", "NOOP 1 2 3 4 5 6 7 8 9 10 11 12"),
    talk("smtp errors", "smtp", "A", "B", "C", "D", "E"),
    talk("smtp two errors", "smtp-errors", "A", "B"),
    talk("smtp errors pipelined", "smtp-errors", Raw("A\r\nNOOP\r\nB\r\nNOOP\r\n", 4)),
    talk("smtp wrong is no error", "smtp-errors", "EHLO", "VRFY", "AUTH", "STARTTLS", RCPT, "AUTH PLAIN", "*", "HELP"),
    talk("smtp too long", "smtp-small", "EHLO " + "a" * 200),
    talk("smtp longest", "smtp-small", "EHLO " + "a" * 121),
    talk("smtp too long for the default", "smtp", "EHLO " + "a" * 5000),
    talk("smtp quit", "smtp", "QUIT"),
    talk("smtp quit arguments", "smtp", "quit now"),
    talk("smtp greeting delay", "smtp-late", EHLO),
    talk("smtp before the greeting", "smtp-late", first=f"{EHLO}\r\n"),
    # smtp_auth none.
    talk("smtp none", "smtp-none", EHLO, MAIL, RCPT, "DATA"),
    talk("smtp none helo", "smtp-none", "HELO client.example", MAIL, RCPT),
    talk("smtp none without hello", "smtp-none", MAIL, RCPT),
    talk("smtp none plainly", "smtp-none-plainly", EHLO, MAIL, RCPT, backend=UNTOLD),
    talk("smtp none plainly without hello", "smtp-none-plainly", MAIL, RCPT, backend=UNTOLD),
    talk("smtp none plainly trusted", "smtp-none-plainly", EHLO, MAIL, RCPT),
    talk("smtp none mixed", "smtp-mixed", EHLO, MAIL, RCPT),
    talk("smtp none mixed login", "smtp-mixed", EHLO, AUTH, MAIL, RCPT),
    talk("smtp none login behind mail", "smtp-mixed", EHLO, MAIL, AUTH, RCPT),
    talk("smtp none blanks", "smtp-none", EHLO, "mail  FROM:<a@b>   BODY=8BITMIME  ", "rcpt  TO:<c@d>  "),
    talk("smtp none eight bits", "smtp-none", EHLO, "MAIL FROM:<caf\xc3\xa9@b> SMTPUTF8", "RCPT TO:<\xe9@d>"),
    talk("smtp none tab", "smtp-none", EHLO, "MAIL FROM:<a\tb@c>", "RCPT TO:<d@e>"),
    talk("smtp none odd syntax", "smtp-none", EHLO, "MAIL whatever", "RCPT anyone"),
    talk("smtp none rcpt first", "smtp-none", EHLO, RCPT, "DATA"),
    talk("smtp none mail twice", "smtp-none", EHLO, MAIL, MAIL),
    talk("smtp none no arguments", "smtp-none", EHLO, "MAIL", "RCPT", MAIL, "RCPT"),
    talk("smtp none rset", "smtp-none", EHLO, MAIL, "RSET", RCPT, MAIL, RCPT),
    talk("smtp none ehlo forgets", "smtp-none", EHLO, MAIL, EHLO, RCPT),
    talk("smtp none auth plain", "smtp-none", EHLO, AUTH),
    talk("smtp none pipelined", "smtp-none", Raw(f"{EHLO}\r\n{MAIL}\r\n{RCPT}\r\nRCPT TO:<c@d>\r\nDATA\r\n", 5)),
    talk("smtp none refused", "smtp-none", EHLO, MAIL, RCPT, auth=REFUSE),
    talk("smtp none refused with code", "smtp-none", EHLO, MAIL, RCPT, auth=f"{REFUSE}\nAuth-Error-Code: 550 5.1.1"),
    talk(
        "smtp none second recipient",
        "smtp-none",
        *(EHLO, MAIL, RCPT, "RCPT TO:<c@gate.example>"),
        auth=(f"{REFUSE}\nAuth-Wait: 1\nAuth-Error-Code: 550 5.1.1", ACCEPT),
    ),
    talk("smtp none no place", "smtp-none", EHLO, MAIL, RCPT, auth="Auth-Status: OK"),
    talk("smtp none user", "smtp-none", EHLO, MAIL, RCPT, auth=f"{ACCEPT}\nAuth-User: bob"),
    talk("smtp none backend refuses mail", "smtp-none", EHLO, MAIL, RCPT, backend={"MAIL": "552 5.3.4 too big"}),
    talk("smtp none refused mail aloud", "smtp-auth-pass", MAIL, RCPT, backend={"MAIL": "552-5.3.4 no\n552 5.3.4 no"}),
    talk("smtp none proxied auth none", "smtp-auth-pass", "EHLO x", MAIL, RCPT),
    talk("smtp none rcpt refused", "smtp-none", EHLO, MAIL, RCPT, backend={"RCPT": "550-5.1.1 no\n550 5.1.1 no"}),
    talk("smtp none before tls only", "smtp-none-only", EHLO, MAIL, RCPT),
    talk("smtp none behind tls", "smtp-none-only", "STARTTLS", TLS, EHLO, MAIL, RCPT),
    talk("smtp none starttls forgets", "smtp-none-only", "EHLO x", "STARTTLS", TLS, RCPT, MAIL, RCPT),
    # Pipelining, and commands after the login.
    talk("smtp pipelined", "smtp", Raw(f"{EHLO}\r\n{AUTH}\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\n", 5)),
    talk("smtp pipelined sasl", "smtp", Raw(f"AUTH PLAIN\r\n{PLAIN}\r\n{MAIL}\r\n", 3)),
    talk("smtp quit at the backend", "smtp", *LOGIN, MAIL, "QUIT", backend={"QUIT": "221 bye"}),
    # Failures of the backend.
    talk("smtp backend greets badly", "smtp", *LOGIN, backend={"GREETING": "554 go away"}),
    talk("smtp backend greets badly aloud", "smtp-pass", *LOGIN, backend={"GREETING": "554-go\n554 away"}),
    talk("smtp backend greets long", "smtp", *LOGIN, backend={"GREETING": "220-backend\n220-says\n220 much"}),
    talk("smtp backend refuses ehlo", "smtp", *LOGIN, backend={"EHLO": "502 5.5.1 what?"}),
    talk("smtp backend refuses ehlo aloud", "smtp-pass", *LOGIN, backend={"EHLO": "502-5.5.1 what?\n502 5.5.1 no"}),
    talk("smtp backend refuses xclient aloud", "smtp-pass", *LOGIN, backend={"XCLIENT": "503 5.5.1 not now"}),
    talk("smtp backend closes", "smtp", *LOGIN, backend={"GREETING": ""}),
    talk("smtp backend closes late aloud", "smtp-pass", *LOGIN, backend={"XCLIENT": ""}),
    talk("smtp backend says too much", "smtp", *LOGIN, backend={"EHLO": "250 " + "x" * 5000}),
    talk("smtp backend mixes codes", "smtp-pass", *LOGIN, backend={"EHLO": "250-backend\n550 no"}),
)
