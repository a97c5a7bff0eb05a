# -*- test-case-name: mailgate.test.backend.test_reply -*-
"""
What a backend's refusal means, and what of it a client may be shown. The answer for the client has the code and the
text of the last line of the backend's reply, in a frame of our own: nothing else that a backend says reaches a client
before the hand-over.

A refusal that speaks of our command, or of the connection between the gateway and the backend, says nothing to the
client: it is a temporary failure in our words. Many servers repeat in such a refusal what they did not understand, a
password too. A text that holds the password is not shown in any refusal.
"""

from __future__ import annotations

import base64
import re

from mailgate.backend.credentials import PasswordLogin
from mailgate.login import Denial, Trouble, fitText

__all__ = ["imapDenial", "isOfAccount", "isRepeated", "pop3Denial", "smtpDenial", "transactionDenial"]

LONGEST = 500
"""Bytes of a line that a client is sent. SMTP and POP3 have room for 512 (RFC 5321, 4.5.3.1.5; RFC 1939, 3)."""

_WORD = re.compile(rb"\[([A-Za-z][A-Za-z0-9/_.+-]{0,63})[ \]]")
_RESPONSE_CODE = re.compile(rb"(\[[!-Z\\^-~]{1,64}(?: [ -Z\\^-~]{1,300})?\]) *(.*)", re.DOTALL)
_REPLY = re.compile(rb"([45][0-5][0-9])(?:[ -](.*)|\Z)", re.DOTALL)
_STATUS = re.compile(rb"([245])(\.[0-9]{1,3}\.[0-9]{1,3})(?: +(.*)|\Z)", re.DOTALL)
_QUOTED = re.compile(rb'["\\]')

_OURS = frozenset((b"PRIVACYREQUIRED", b"CLIENTBUG"))
"""Response codes (RFC 5530) that speak of the connection between gateway and backend, or of our command."""
_PASSING = frozenset((b"UNAVAILABLE", b"INUSE", b"LIMIT", b"SERVERBUG", b"IN-USE", b"LOGIN-DELAY", b"SYS/TEMP"))
"""Those (RFC 5530, 2449, 3206) that say nothing of the password, and will pass; as will all others in C{SYS/}."""
_LASTING = frozenset((b"CONTACTADMIN", b"OVERQUOTA", b"REFERRAL", b"SYS/PERM"))
"""Those that say nothing of the password, and will not pass by themselves (RFC 5530, 2221, 3206)."""

_OF_THE_CONNECTION = frozenset((b"421", b"521", b"523", b"530", b"538"))
_OF_OUR_COMMAND = frozenset((b"500", b"501", b"502", b"503", b"504"))
_NOT_OF_MAIL = _OF_THE_CONNECTION | {b"500", b"502"}
"""What a server that knows MAIL does not say to it."""
_OF_ACCOUNT = re.compile(
    rb"(?:[^ ]+ NO|-ERR) \[(?:IN-?USE|LOGIN-DELAY|LIMIT|REFERRAL|OVERQUOTA|CONTACTADMIN)[ \]]|(?:432|525)[ \r\n-]",
    re.IGNORECASE,
)
_DISABLED = b"525"
"""The account is disabled (RFC 5248)."""

_DEFAULT = b"Authentication failed"


def isRepeated(text: bytes, login: PasswordLogin) -> bool:
    """Whether C{text} holds the password, in one of the forms in which a backend has been sent it."""
    password = login.password
    if not password:
        return False
    message = b"\0".join((login.authzid or b"", login.user, password))
    forms = (password, _QUOTED.sub(rb"\\\g<0>", password), base64.b64encode(password), base64.b64encode(message))
    lowered = text.lower()
    return any(form.lower() in lowered for form in forms)


def _cut(line: bytes) -> bytes:
    """As much of C{line}, which is UTF-8, as a client is sent."""
    return line if len(line) <= LONGEST else line[:LONGEST].decode("utf-8", "ignore").encode("utf-8")


def _answer(head: bytes, text: bytes, login: PasswordLogin) -> bytes:
    """The line for the client that begins with C{head}, or nothing where none of C{text} is fit for it."""
    if isRepeated(text, login):
        return b""
    code = b""
    match = _RESPONSE_CODE.match(text)
    if match is not None:
        code, text = match.groups()
        if code[1:11].upper() == b"CAPABILITY":
            # The client would take the backend's capabilities for ours.
            code = b""
    # A text that begins with a bracket would be read as a code.
    fit = None if text.startswith(b"[") else fitText(text)
    if not fit and not code:
        return b""
    return _cut(b" ".join(filter(None, (head, code, fit or _DEFAULT))))


def _denial(head: bytes, text: bytes, login: PasswordLogin) -> Denial:
    """What a refusal with C{text} means, perhaps with a response code in it, that begins with C{head}."""
    text = text.strip()
    match = _WORD.match(text)
    word = match[1].upper() if match else b""
    if word in _OURS:
        return Denial(Trouble.TEMPORARY)
    trouble = Trouble.DENIED
    if word in _LASTING:
        trouble = Trouble.PERMANENT
    elif word in _PASSING or word.startswith(b"SYS/"):
        trouble = Trouble.TEMPORARY
    return Denial(trouble, answer=_answer(head, text, login))


def imapDenial(status: bytes, text: bytes, login: PasswordLogin) -> Denial:
    """What a tagged response of IMAP means whose C{status}, in upper case, is NO or BAD. C{text} is what follows it."""
    return _denial(status, text, login) if status == b"NO" else Denial(Trouble.TEMPORARY)


def pop3Denial(reply: bytes, login: PasswordLogin) -> Denial:
    """What a C{reply} of POP3 means that begins with C{-ERR}."""
    return _denial(b"-ERR", reply[4:], login)


def isOfAccount(reply: bytes) -> bool:
    """
    Whether a C{reply} that refuses a login speaks of this one account, which is locked, full, disabled or elsewhere:
    nothing is wrong with the backend.
    """
    return _OF_ACCOUNT.match(_lastLine(reply) + b"\n") is not None


def _lastLine(said: bytes) -> bytes:
    return said.rstrip(b"\r\n").rpartition(b"\n")[2]


def _smtpLine(code: bytes, separator: bytes, text: bytes, default: bytes = b"") -> bytes:
    """A line of a reply, with C{default} where C{text} says nothing or is not fit for it; nothing if there is none."""
    text = text.strip()
    head = code + separator
    status = _STATUS.match(text)
    if status is not None:
        text = status[3] or b""
        # A class that is not the reply's would make something permanent of what passes, or the reverse.
        if status[1] == code[:1]:
            head += status[1] + status[2] + b" "
    fit = fitText(text)
    if fit is None and not default:
        return b""
    return _cut(head + (fit or default)).rstrip(b" ")


def smtpDenial(said: bytes, login: PasswordLogin) -> Denial:
    """What a refusal of AUTH means (RFC 4954, section 6)."""
    match = _REPLY.match(_lastLine(said))
    if match is None or match[1] in _OF_THE_CONNECTION or match[1] in _OF_OUR_COMMAND:
        return Denial(Trouble.TEMPORARY)
    code, text = match[1], match[2] or b""
    if isRepeated(text, login):
        text = b""
    answer = _smtpLine(code, b" ", text, _DEFAULT)
    if code.startswith(b"4"):
        return Denial(Trouble.TEMPORARY, answer=answer)
    return Denial(Trouble.PERMANENT if code == _DISABLED else Trouble.DENIED, answer=answer)


def transactionDenial(said: bytes) -> Denial:
    """
    What a refusal of the sender means, where a client does not log in. The client is told it with all lines, in answer
    to its recipient: its MAIL has been answered before. It was the client's own command that was refused.
    """
    match = _REPLY.match(_lastLine(said))
    if match is None or match[1] in _NOT_OF_MAIL:
        return Denial(Trouble.TEMPORARY)
    code = match[1]
    last = _smtpLine(code, b" ", match[2] or b"", b"Refused")
    answer = b"\r\n".join((*_linesBefore(code, said), last))
    return Denial(Trouble.TEMPORARY if code.startswith(b"4") else Trouble.DENIED, answer=answer)


def _linesBefore(code: bytes, said: bytes) -> list[bytes]:
    """The lines before the last of the reply C{said}; none if one of them has another C{code}, or is not fit."""
    lines = []
    for line in said.rstrip(b"\r\n").split(b"\n")[:-1]:
        match = _REPLY.match(line.rstrip(b"\r"))
        made = _smtpLine(code, b"-", match[2] or b"") if match and match[1] == code else b""
        if not made:
            return []
        lines.append(made)
    return lines
