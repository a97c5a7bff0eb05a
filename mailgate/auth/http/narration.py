# -*- test-case-name: mailgate.test.auth.http.test_narration -*-
"""
What the log says about questions to authentication services and about their answers.

At level debug it has the headers of both. It shows the values of headers that are listed here, and C{***} for all
others: they may be passwords, tokens, cookies, or keys that the configuration sends. A value in which the client's
secret occurs is not shown either.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator

from twisted.web.client import ResponseFailed

from mailgate.auth.http.connection import ExchangeFailed
from mailgate.auth.http.exchange import Wait
from mailgate.auth.http.headers import PreparedHeaders, Values
from mailgate.log.connection import ANSWERED, ASKED
from mailgate.log.journal import printable
from mailgate.login import Denial, LoginRequest, Route
from mailgate.net.connectionerrors import inWords
from mailgate.tls.errors import CertificateError

__all__ = ["inLog", "logAnswer", "logQuestion", "traced"]

_ASKED = frozenset(
    b"auth-method auth-protocol auth-login-attempt client-ip client-host proxy-protocol-addr proxy-protocol-port"
    b" proxy-protocol-server-addr proxy-protocol-server-port auth-smtp-helo auth-smtp-from auth-smtp-to auth-ssl"
    b" auth-ssl-protocol auth-ssl-cipher auth-ssl-verify auth-ssl-subject auth-ssl-issuer auth-ssl-serial"
    b" auth-ssl-fingerprint traceparent".split()
)
"""The headers of questions whose values are shown. The user has a field of the line before."""

_ANSWERED = frozenset(
    b"auth-status auth-server auth-port auth-wait auth-error-code auth-upstream auth-server-next auth-proxy-ssl"
    b" auth-proxy-ssl-verify auth-proxy-ssl-name auth-proxy-method auth-proxy-identity auth-proxy-hold"
    b" auth-session-timeout auth-limit auth-user-exists content-length content-type".split()
)
"""The headers of answers whose values are shown."""

_MOST = 32
"""The most headers of a line."""

_SHORTEST = 4
"""The fewest bytes of a secret that is looked for in values: shorter ones occur by chance."""


def inLog(error: BaseException | None) -> str:
    """
    Return what an error says about a service, as a phrase for the log that begins with a verb.

    @param error: the error of a request.
    """
    text = str(error)
    if not isinstance(getattr(error, "cause", None), CertificateError):
        # A CertificateError has escaped texts from the network itself.
        text = printable(text.encode("utf-8", "backslashreplace"))
    if isinstance(error, ExchangeFailed | ResponseFailed):
        return f"failed {text}"
    return inWords(error) or f"failed: {text}"


def logQuestion(request: LoginRequest, url: str, headers: PreparedHeaders) -> None:
    """
    Log a question at level debug, if that is logged for this login.

    @param request: the login.
    @param url: the URL of the service, without its query.
    @param headers: the headers of the question.
    """
    if request.step is not None:
        lines = (line.partition(b": ") for line in headers.block.split(b"\r\n")[:-1])
        shown = _shown(((name, value) for name, _, value in lines), _ASKED, request)
        request.step(ASKED, url=url, headers=shown)


def logAnswer(
    request: LoginRequest, url: str, values: Values, answer: Route | Denial | Wait | None, seconds: float
) -> None:
    """
    Log an answer at level debug, if that is logged for this login.

    @param request: the login.
    @param url: the URL of the service, without its query.
    @param values: the values of the answer's headers.
    @param answer: their meaning; L{None} for an acceptance.
    @param seconds: how long the service has taken.
    """
    if request.step is None:
        return
    verdict = "accepts the login" if answer is None else "refuses the login"
    if isinstance(answer, Wait):
        verdict = f"is to be asked again in {answer.seconds} s"
    fields = ((name, value) for name, each in values.items() for value in each)
    shown = _shown(fields, _ANSWERED, request)
    request.step(ANSWERED, url=url, verdict=verdict, seconds=seconds, headers=shown)


def _shown(fields: Iterable[tuple[bytes, bytes]], harmless: frozenset[bytes], request: LoginRequest) -> str:
    return ", ".join(_each(fields, harmless, request.credentials.secret))


def _each(fields: Iterable[tuple[bytes, bytes]], harmless: frozenset[bytes], secret: bytes) -> Iterator[str]:
    forms = (secret, b64encode(secret)) if len(secret) >= _SHORTEST else ()
    for number, (name, value) in enumerate(fields):
        if number == _MOST:
            yield "..."
            return
        isShown = name.lower() in harmless and not any(form in value for form in forms)
        yield f"{printable(name)}: {printable(value) if isShown else '***'}"


def traced(headers: PreparedHeaders, trace: str, randomness: Callable[[int], bytes]) -> PreparedHeaders:
    """
    Return the headers of a question with a C{traceparent} (W3C Trace Context, section 3.2), which is sampled.

    @param headers: the other headers.
    @param trace: the trace id, 32 hexadecimal digits.
    @param randomness: called with a number, returns that many random bytes, for the id of the span.
    """
    return headers.having(
        b"traceparent: 00-%b-%b-01\r\n" % (trace.encode("ascii"), randomness(8).hex().encode("ascii"))
    )
