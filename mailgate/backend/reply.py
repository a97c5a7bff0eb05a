# -*- test-case-name: mailgate.test.backend.test_reply -*-
"""
Interprets a backend's refusal and selects the part that the client may see. The client's reply contains the code and
the text of the last line of the backend's reply. Nothing else from a backend reaches a client before the hand-over.

A refusal that is about our command, or about the connection between gateway and backend, becomes a temporary failure in
our words: many servers repeat the command in such a refusal, and with it a password. A text that contains the password
is never passed on.
"""

from __future__ import annotations

import base64
import re

from mailgate.backend.credentials import PasswordLogin
from mailgate.login import Denial, Trouble, fitText

__all__ = [
    "imapDenial",
    "isBusy",
    "isOfAccount",
    "isPassing",
    "isRepeated",
    "pop3Denial",
    "smtpDenial",
    "transactionDenial",
]

LONGEST = 500
"""
The longest line in bytes for a client. SMTP and POP3 allow 512 (RFC 5321, section 4.5.3.1.5; RFC 1939, section 3).
"""

_WORD = re.compile(rb"\[([A-Za-z][A-Za-z0-9/_.+-]{0,63})[ \]]")
_RESPONSE_CODE = re.compile(rb"(\[[!-Z\\^-~]{1,64}(?: [ -Z\\^-~]{1,300})?\]) *(.*)", re.DOTALL)
_REPLY = re.compile(rb"([45][0-5][0-9])(?:[ -](.*)|\Z)", re.DOTALL)
_STATUS = re.compile(rb"([245])(\.[0-9]{1,3}\.[0-9]{1,3})(?: +(.*)|\Z)", re.DOTALL)
_ENCODED = re.compile(rb"[A-Za-z0-9+/]{8,}")
"""
Matches what may be a message of SASL in base64, without its padding. XOAUTH2 and OAUTHBEARER have the token within
their messages.
"""
_QUOTED = re.compile(rb'["\\]')

_OURS = frozenset((b"PRIVACYREQUIRED", b"CLIENTBUG"))
"""Response codes (RFC 5530) about the connection between gateway and backend, or about our command."""
_PASSING = frozenset((b"UNAVAILABLE", b"INUSE", b"LIMIT", b"SERVERBUG", b"IN-USE", b"LOGIN-DELAY", b"SYS/TEMP"))
"""
Response codes of temporary failures that are not about the password (RFC 5530, 2449, 3206). All others that begin with
C{SYS/} are temporary, too, except those in C{_LASTING}.
"""
_LASTING = frozenset((b"CONTACTADMIN", b"OVERQUOTA", b"REFERRAL", b"SYS/PERM"))
"""Response codes of permanent failures that are not about the password (RFC 5530, 2221, 3206)."""

_OF_THE_CONNECTION = frozenset((b"421", b"521", b"523", b"530", b"538"))
_OF_OUR_COMMAND = frozenset((b"500", b"501", b"502", b"503", b"504"))
_NOT_OF_MAIL = _OF_THE_CONNECTION | {b"500", b"502"}
"""Codes that are not about the sender, so they are not passed on as a refusal of MAIL."""
_OF_ACCOUNT = re.compile(
    rb"(?:[^ ]+ NO|-ERR) \[(?:IN-?USE|LOGIN-DELAY|LIMIT|REFERRAL|OVERQUOTA|CONTACTADMIN)[ \]]|(?:432|525)[ \r\n-]"
    rb"|NO \((?:LIMIT|REFERRAL|TRANSITION-NEEDED)[ /)]",
    re.IGNORECASE,
)
_PASSING_REPLY = re.compile(
    rb"(?:[^ ]+ NO|-ERR) \[(?:UNAVAILABLE|SYS/TEMP)[ \]]|4(?!32)[0-5][0-9][ \r\n-]|NO \(TRYLATER[ /)]", re.IGNORECASE
)
_BUSY = re.compile(rb"(?:[^ ]+ NO|-ERR) \[(?:IN-?USE|LIMIT|LOGIN-DELAY)[ \]]|NO \(LIMIT[ /)]", re.IGNORECASE)
_DISABLED = b"525"
"""The account is disabled (RFC 5248)."""

_DEFAULT = b"Authentication failed"


def isRepeated(text: bytes, login: PasswordLogin) -> bool:
    """
    Return whether C{text} contains the password in one of the forms in which a backend has received it.

    @param text: a reply of the backend.
    @param login: the login with the password.
    """
    password = login.password
    if not password:
        return False
    message = b"\0".join((login.authzid or b"", login.user, password))
    forms = (password, _QUOTED.sub(rb"\\\g<0>", password), base64.b64encode(password), base64.b64encode(message))
    lowered = text.lower()
    if any(form.lower() in lowered for form in forms):
        return True
    return any(password in _decoded(word) for word in _ENCODED.findall(text))


def _decoded(word: bytes) -> bytes:
    """Decode C{word}, base64 without its padding. A character that cannot be the last one is left out."""
    fit = word[:-1] if len(word) % 4 == 1 else word
    return base64.b64decode(fit + b"=" * (-len(fit) % 4))


def _cut(line: bytes) -> bytes:
    """Shorten C{line}, which is UTF-8, to the longest line for a client."""
    return line if len(line) <= LONGEST else line[:LONGEST].decode("utf-8", "ignore").encode("utf-8")


def _answer(head: bytes, text: bytes, login: PasswordLogin) -> bytes:
    """Return the line for the client, which begins with C{head}; empty if the client may see nothing of C{text}."""
    if isRepeated(text, login):
        return b""
    code = b""
    match = _RESPONSE_CODE.match(text)
    if match is not None:
        code, text = match.groups()
        if code[1:11].upper() == b"CAPABILITY":
            # The client would mistake the backend's capabilities for the gateway's.
            code = b""
    # The client would parse a text that begins with a bracket as a code.
    fit = None if text.startswith(b"[") else fitText(text)
    if not fit and not code:
        return b""
    return _cut(b" ".join(filter(None, (head, code, fit or _DEFAULT))))


def _denial(head: bytes, text: bytes, login: PasswordLogin) -> Denial:
    """Interpret a refusal. C{head} is its status; C{text} may begin with a response code."""
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
    """
    Interpret a tagged IMAP response that refuses a login (RFC 3501, sections 7.1.2 and 7.1.3).

    @param status: NO or BAD, in capitals.
    @param text: the rest of the response.
    @param login: the refused login. Its password is never passed on.
    """
    return _denial(status, text, login) if status == b"NO" else Denial(Trouble.TEMPORARY)


def pop3Denial(reply: bytes, login: PasswordLogin) -> Denial:
    """
    Interpret a POP3 reply that refuses a login (RFC 2449, section 8; RFC 3206).

    @param reply: the reply, which begins with C{-ERR}.
    @param login: the refused login. Its password is never passed on.
    """
    return _denial(b"-ERR", reply[4:], login)


def isOfAccount(reply: bytes) -> bool:
    """
    Return whether a refusal is about this account only, which is locked, over quota, disabled or on another server.
    Then the backend works.

    @param reply: the backend's reply.
    """
    return _OF_ACCOUNT.match(_lastLine(reply) + b"\n") is not None


def isPassing(reply: bytes) -> bool:
    """
    Return whether a refusal is temporary and may be this server's alone: C{[UNAVAILABLE]} (RFC 5530), C{[SYS/TEMP]}
    (RFC 3206), C{4xx} in SMTP and C{(TRYLATER)} in ManageSieve. Another server may accept the login.

    432 is left out: the account needs a password transition (RFC 4954, section 6).

    @param reply: the backend's reply.
    """
    return _PASSING_REPLY.match(_lastLine(reply) + b"\n") is not None


def isBusy(reply: bytes) -> bool:
    """
    Return whether a refusal says that the mailbox is in use, has reached a limit, or was opened too short a time ago:
    C{[INUSE]} and C{[LIMIT]} (RFC 5530), C{[IN-USE]} and C{[LOGIN-DELAY]} (RFC 2449). The client receives this code, as
    it can tell its user, or wait.

    @param reply: the backend's reply.
    """
    return _BUSY.match(_lastLine(reply) + b"\n") is not None


def _lastLine(said: bytes) -> bytes:
    return said.rstrip(b"\r\n").rpartition(b"\n")[2]


def _smtpLine(code: bytes, separator: bytes, text: bytes, default: bytes = b"") -> bytes:
    """Return a line of a reply. C{default} replaces a C{text} that is empty or unfit; without it the line is empty."""
    text = text.strip()
    head = code + separator
    status = _STATUS.match(text)
    if status is not None:
        text = status[3] or b""
        # A class that contradicts the reply code would turn a temporary failure into a permanent one, or the reverse.
        if status[1] == code[:1]:
            head += status[1] + status[2] + b" "
    fit = fitText(text)
    if fit is None and not default:
        return b""
    return _cut(head + (fit or default)).rstrip(b" ")


def smtpDenial(said: bytes, login: PasswordLogin) -> Denial:
    """
    Interpret an SMTP reply that refuses AUTH (RFC 4954, section 6).

    @param said: the reply with all its lines.
    @param login: the refused login. Its password is never passed on.
    """
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
    Interpret an SMTP reply that refuses MAIL, for a client without a login. The client gets all its lines as the reply
    to RCPT: the gateway has already accepted its MAIL.

    @param said: the reply with all its lines.
    """
    match = _REPLY.match(_lastLine(said))
    if match is None or match[1] in _NOT_OF_MAIL:
        return Denial(Trouble.TEMPORARY)
    code = match[1]
    last = _smtpLine(code, b" ", match[2] or b"", b"Refused")
    answer = b"\r\n".join((*_linesBefore(code, said), last))
    return Denial(Trouble.TEMPORARY if code.startswith(b"4") else Trouble.DENIED, answer=answer)


def _linesBefore(code: bytes, said: bytes) -> list[bytes]:
    """Return the lines of a reply before the last; none if one of them has another C{code} or is unfit."""
    lines = []
    for line in said.rstrip(b"\r\n").split(b"\n")[:-1]:
        match = _REPLY.match(line.rstrip(b"\r"))
        made = _smtpLine(code, b"-", match[2] or b"") if match and match[1] == code else b""
        if not made:
            return []
        lines.append(made)
    return lines
