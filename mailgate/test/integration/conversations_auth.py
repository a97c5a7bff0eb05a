# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Replies of the authentication service, and their effects: the same in all protocols."""

from __future__ import annotations

from mailgate.test.integration.conversation import Conversation, Raw, b64, talk
from mailgate.test.integration.scripted import ACCEPT

__all__ = ["CONVERSATIONS", "LOGIN"]

PLAIN = b64("\0alice\0secret")

LOGIN: dict[str, tuple[str, ...]] = {
    "imap": ("a LOGIN alice secret",),
    "pop3": ("USER alice", "PASS secret"),
    "smtp": ("EHLO client.example", f"AUTH PLAIN {PLAIN}"),
}

REFUSE = "Auth-Status: Invalid login or password"
PLACE = "Auth-Server: 127.0.0.1\nAuth-Port: <PORT>"

ANSWERS = {
    # Refusals.
    "refused": REFUSE,
    "refused wait 0": f"{REFUSE}\nAuth-Wait: 0",
    "refused wait nonsense": f"{REFUSE}\nAuth-Wait: soon",
    "refused wait negative": f"{REFUSE}\nAuth-Wait: -1",
    "refused with a place": f"{REFUSE}\n{PLACE}",
    "refused code": f"{REFUSE}\nAuth-Error-Code: 554 5.7.1",
    "refused temporary code": f"{REFUSE}\nAuth-Error-Code: 451 4.3.0",
    "refused bare code": f"{REFUSE}\nAuth-Error-Code: 550",
    "refused wrong code": f"{REFUSE}\nAuth-Error-Code: hello",
    "refused with response code": "Auth-Status: [UNAVAILABLE] try later",
    "refused lower case ok": "Auth-Status: ok",
    "refused blanks": "Auth-Status:   no   way  ",
    "refused tab": "Auth-Status: no\tway",
    "refused eight bits": "Auth-Status: caf\xc3\xa9",
    "refused latin 1": "Auth-Status: caf\xe9",
    "refused control": "Auth-Status: no\x01way",
    "refused empty": "Auth-Status:",
    "refused wait lower case": "Auth-Status: wait",
    # The order of headers, and duplicates.
    "refused and accepted": f"{ACCEPT}\n{REFUSE}",
    "accepted and refused": f"{REFUSE}\n{ACCEPT}",
    "refused twice": f"{REFUSE}\nAuth-Status: second",
    "place twice": f"Auth-Status: OK\nAuth-Server: 127.0.0.9\nAuth-Port: 1\n{PLACE}",
    "user twice": f"{ACCEPT}\nAuth-User: one\nAuth-User: two",
    "place first": f"{PLACE}\nAuth-Status: OK",
    # How headers are written.
    "lower case": ACCEPT.replace("Auth-Status", "auth-status").replace("Auth-Server", "auth-server"),
    "upper case": ACCEPT.replace("Auth-Port", "AUTH-PORT").replace("Auth-Server", "AUTH-SERVER"),
    "no blanks": ACCEPT.replace(": ", ":"),
    "many blanks": ACCEPT.replace(": ", ":    ").replace("\n", "   \n"),
    "others": f"Server: x\nDate: today\nX-Auth-Status: no\n{ACCEPT}\nSet-Cookie: a=b; c",
    "status 500": f"HTTP/1.1 500 Oops\n{ACCEPT}",
    "status 404": f"HTTP/1.1 404 Not Found\n{ACCEPT}",
    "status 301": f"HTTP/1.1 301 Moved\nLocation: /elsewhere\n{ACCEPT}",
    "status 401 refused": f"HTTP/1.1 401 No\n{REFUSE}",
    "version 1.0": f"HTTP/1.0 200 OK\n{ACCEPT}",
    "status alone": f"HTTP/1.1 200\n{ACCEPT}",
    "underscore": f"{ACCEPT}\nX_Bad: 1",
    "blank in a name": f"{ACCEPT}\nX Bad: 1",
    "folded": f"{ACCEPT}\nX-Long: a\n b",
    "no colon": f"{ACCEPT}\nnonsense",
    "tab before ok": ACCEPT.replace(" OK", "\tOK"),
    # Missing and wrong headers.
    "no status": PLACE,
    "nothing": "X-Nothing: 1",
    "no server": "Auth-Status: OK\nAuth-Port: <PORT>",
    "no port": "Auth-Status: OK\nAuth-Server: 127.0.0.1",
    "no place": "Auth-Status: OK",
    "empty server": "Auth-Status: OK\nAuth-Server:\nAuth-Port: <PORT>",
    "server is a name": "Auth-Status: OK\nAuth-Server: localhost\nAuth-Port: <PORT>",
    "server is short": "Auth-Status: OK\nAuth-Server: 127.1\nAuth-Port: <PORT>",
    "server in brackets": "Auth-Status: OK\nAuth-Server: [::1]\nAuth-Port: <NOBODY>",
    "server of six": "Auth-Status: OK\nAuth-Server: ::1\nAuth-Port: <NOBODY>",
    "server with port": "Auth-Status: OK\nAuth-Server: 127.0.0.1:<PORT>\nAuth-Port: <PORT>",
    "server with zeros": "Auth-Status: OK\nAuth-Server: 127.0.0.001\nAuth-Port: <PORT>",
    "server is nonsense": "Auth-Status: OK\nAuth-Server: !!!\nAuth-Port: <PORT>",
    "port 0": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: 0",
    "port 65536": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: 65536",
    "port negative": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: -1",
    "port with zeros": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: 000<PORT>",
    "port is a word": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: imap",
    "port of nobody": "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: <NOBODY>",
    "closed": "",
    # The user to log in.
    "another user": f"{ACCEPT}\nAuth-User: bob",
    "another password": f"{ACCEPT}\nAuth-Pass: other",
    "another both": f"{ACCEPT}\nAuth-User: bob\nAuth-Pass: other",
    "another user with blank": f"{ACCEPT}\nAuth-User: bob  builder",
    "another not decoded": f"{ACCEPT}\nAuth-User: b%20b\nAuth-Pass: p%41",
    "another eight bits": f"{ACCEPT}\nAuth-User: ren\xc3\xa9e\nAuth-Pass: \xe9t\xe9",
    "another with quotes": f'{ACCEPT}\nAuth-User: a"b\\c\nAuth-Pass: "x" \\',
    "another empty user": f"{ACCEPT}\nAuth-User:",
    "another empty password": f"{ACCEPT}\nAuth-Pass:",
    "wait with success": f"{ACCEPT}\nAuth-Wait: 5",
}
"""Replies to a single login, which succeeds or fails at once."""


def _slowly(protocol: str) -> tuple[Conversation, ...]:
    """Logins that take a second."""
    again = LOGIN[protocol][-1:] if protocol != "pop3" else LOGIN[protocol]
    wait = f"{REFUSE}\nAuth-Wait: 1"
    return (
        talk(f"{protocol} auth tried again", protocol, *LOGIN[protocol], *again, auth=(wait, ACCEPT)),
        talk(f"{protocol} auth waits", protocol, *LOGIN[protocol], auth=("Auth-Status: WAIT\nAuth-Wait: 1", ACCEPT)),
    )


CONVERSATIONS = (
    *(
        talk(f"{protocol} auth {name}", protocol, *LOGIN[protocol], auth=answer)
        for protocol in LOGIN
        for name, answer in ANSWERS.items()
    ),
    *(conversation for protocol in LOGIN for conversation in _slowly(protocol)),
    talk(
        "smtp auth waits with code",
        "smtp",
        *LOGIN["smtp"],
        "NOOP",
        auth=f"{REFUSE}\nAuth-Wait: 1\nAuth-Error-Code: 454 4.7.0",
    ),
    talk("pop3 auth waits without saying how long", "pop3", *LOGIN["pop3"], auth=("Auth-Status: WAIT", REFUSE)),
    talk(
        "pop3 auth pipelined behind a refusal",
        "pop3",
        Raw("USER alice\r\nPASS wrong\r\nCAPA\r\nNOOP\r\n", 4),
        auth=f"{REFUSE}\nAuth-Wait: 1",
    ),
)
