# -*- test-case-name: mailgate.test.test_passwdfile -*-
"""
C{auth_file = PATH}: accounts in Dovecot's passwd-file format, a line each::

    user:{SCHEME}hash:uid:gid:gecos:home:shell:host=10.0.0.1 port=143 ssl=yes

U{The format<https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/>} and what its extra fields
mean are Dovecot's, checked against Dovecot 2.3. The differences let fewer in: an empty password lets nobody in, with
C{nopassword} too; a line with a mistake in a field that is read here is no account. User names compare without regard
to the case of ASCII letters on both sides, where Dovecot lowers only the client's.

Read of the extra fields are C{host}, C{port}, C{ssl}, C{starttls}, C{destuser}, C{pass}, C{allow_nets}, C{nologin} and
C{fail}; the others are ignored. Values may hold C{%u}, C{%n}, C{%d} and C{%%}. An account without C{host} lives at
the backend of C{proxy_pass}.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.accounts import Account, BadLine, parseAccount
from mailgate.directives import Problem, ServerSettings, directive, path
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.journal import Journal, printable
from mailgate.login import Backend, Credentials, Denial, LoginRequest, Method, Route, Trouble, fitForWire
from mailgate.passwords import Password, commonest

__all__ = ["KIND", "AccountFile", "FileAuthenticator", "FileSettings", "Hashing"]

LARGEST = 64 * 1024 * 1024  # bytes of a file that are read: a larger one is a mistake in the path
LOOK_AGAIN = 1.0  # seconds between two looks at whether the file has changed
SAMPLE = 200  # lines that are asked for the commonest scheme
AT_ONCE = 3  # hashes computed at once: with the lookups of names (MOST_LOOKUPS) fewer than the reactor has threads
WAITING = 256  # logins that wait for one of these
PATIENCE = 30.0  # seconds in which a login gets its turn, and its hash is computed

METHODS = frozenset({Method.PLAIN, Method.CRAM_MD5, Method.APOP})


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: str) -> tuple[bytes, tuple[int, int, int] | None]:
    """The file's content, and its L{_stamp}, or L{None} where it was written to meanwhile."""
    # A FIFO would otherwise block the reactor until somebody writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {LARGEST} bytes")
        stamp = _stamp(status)
        return content, stamp if stamp == _stamp(os.fstat(file.fileno())) else None


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that should be accounts, and their numbers."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.isspace() and not line.lstrip().startswith(b"#"):
            yield number, line[:-1] if line.endswith(b"\r") else line


class AccountFile:
    """
    The accounts in the file C{path}. A file that cannot be read leaves those that were read last, which is logged once.

    C{decoy} is a password of the commonest scheme, to spend the time on that a wrong password takes.
    """

    decoy: Password | None = None

    def __init__(self, path: str, clock: Any, journal: Journal) -> None:
        self._path = path
        self._clock = clock
        self._journal = journal
        self._lines: dict[bytes, bytes] | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._failing = False
        self._look()

    def refresh(self) -> bool:
        """Read the file again if it has changed and L{LOOK_AGAIN} is over; whether it could be read, now or ever."""
        if self._clock.seconds() - self._looked >= LOOK_AGAIN:
            self._look()
        return self._lines is not None

    def find(self, user: bytes, protocol: str) -> Account | None:
        """
        The account of C{user} as last read.

        @raise BadLine: its line is none.
        """
        line = (self._lines or {}).get(user.lower())
        return None if line is None else parseAccount(line, protocol)

    def _look(self) -> None:
        self._looked = self._clock.seconds()
        try:
            if self._stamp is None or _stamp(os.stat(self._path)) != self._stamp:
                content, self._stamp = _read(self._path)
                self._take(content)
        except OSError as error:
            if not self._failing:
                self._journal.error("auth_file {path} cannot be read: {why}", path=self._path, why=error.strerror)
            self._failing = True
        else:
            self._failing = False

    def _take(self, content: bytes) -> None:
        # A line is parsed when its user logs in: to parse all of a large file would hold everybody else up.
        lines: dict[bytes, bytes] = {}
        for _, line in _numbered(content):
            lines.setdefault(line.partition(b":")[0].lower(), line)
        self._lines = lines
        self.decoy = commonest(line.split(b":", 2)[1] for line in islice(lines.values(), SAMPLE) if b":" in line)


class Overloaded(Exception):
    """Too many logins wait for their hashes."""


class Hashing:
    """The reactor's threads, as far as hashes may take them: L{AT_ONCE}, while L{WAITING} others wait."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._free = DeferredSemaphore(AT_ONCE)

    def run(self, check: Callable[[], bool]) -> Deferred[bool]:
        """
        What C{check} says, in a thread; it fails with L{Overloaded}, or with C{TimeoutError} after L{PATIENCE}.

        Cancelling gives up the place of one that waits; what has been started goes on, and keeps its place till then.
        """
        if len(self._free.waiting) >= WAITING:
            return fail(Overloaded())
        return self._free.acquire().addCallback(self._start, check).addTimeout(PATIENCE, self._reactor)

    def _start(self, _: object, check: Callable[[], bool]) -> Deferred[bool]:
        def finished(result: bool | Failure) -> bool | Failure:
            self._free.release()
            return result

        # A thread cannot be stopped: were its own Deferred the caller's, cancelling would free the place too early.
        answer: Deferred[bool] = Deferred()
        work = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), check)
        work.addBoth(finished).chainDeferred(answer)
        return answer


@implementer(IAuthenticator)
class FileAuthenticator:
    """
    Judges logins by an account file. Whatever is wrong with one, the client gets the same answer, after the same work.
    """

    def __init__(self, file: AccountFile, hashing: Hashing, default: Backend | None, journal: Journal) -> None:
        self._file = file
        self._hashing = hashing
        self._default = default
        self._journal = journal

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Judge C{request} by the file's present content. See L{IAuthenticator.authenticate}."""
        credentials = request.credentials
        if not self._file.refresh():
            return succeed(Denial(Trouble.TEMPORARY))
        if credentials.method not in METHODS or not credentials.secret:
            return succeed(self._refuse(request, "no password"))
        if not fitForWire(credentials.user, credentials.secret):
            # A hash of only the beginning would let the rest of such a password through to the backend.
            return succeed(self._refuse(request, "CR, LF or NUL in the credentials"))
        found = self._find(request)
        right = self._compare(credentials, None if isinstance(found, str) else found.password)
        return right.addCallbacks(partial(self._decide, request, found), self._undecided)

    def close(self) -> None:
        """Nothing is kept open."""

    def _find(self, request: LoginRequest) -> Account | str:
        """The account, or why there is none."""
        user = request.credentials.user
        try:
            return self._file.find(user, request.protocol) or "unknown user"
        except BadLine as error:
            self._journal.error("auth_file: {user} cannot log in: {why}", user=printable(user), why=str(error))
            return "unusable line"

    def _compare(self, credentials: Credentials, password: Password | None) -> Deferred[bool]:
        compared = password or self._file.decoy
        if compared is None:
            return succeed(False)
        if credentials.method.isDigest:
            return succeed(compared.answers(credentials.method, credentials.salt, credentials.secret))
        check = partial(compared.matches, credentials.secret)
        return self._hashing.run(check) if compared.slow else succeed(check())

    def _decide(self, request: LoginRequest, found: Account | str, right: bool) -> Route | Denial:
        against = found if isinstance(found, str) else _objection(found, request, right)
        if isinstance(found, str) or against:
            return self._refuse(request, against)
        backend = found.backend or self._default
        if backend is None:
            user = printable(found.user)
            self._journal.error("auth_file: {user} has no host, and there is no proxy_pass", user=user)
            return Denial(Trouble.TEMPORARY)
        given = request.credentials
        plain = found.password.plain if given.method.isDigest and found.password else given.secret
        backendPassword = plain if found.backendPassword is None else found.backendPassword
        return Route((backend,), found.destUser or found.user, backendPassword)

    def _undecided(self, failure: Failure) -> Denial:
        failure.trap(Overloaded, TimeoutError)
        self._journal.warn("auth_file: too many logins wait for their passwords to be hashed")
        return Denial(Trouble.TEMPORARY)

    def _refuse(self, request: LoginRequest, reason: str) -> Denial:
        self._journal.info(
            "auth_file: {protocol} login of {user} from {client} refused: {reason}",
            protocol=request.protocol,
            user=printable(request.credentials.user),
            client=request.client.host,
            reason=reason,
        )
        return Denial(Trouble.DENIED)


def _objection(account: Account, request: LoginRequest, right: bool) -> str:
    """Why the login is refused, for the log; empty where it is not."""
    method = request.credentials.method
    if account.password is None:
        return "locked account"
    if method.isDigest and account.password.plain is None:
        return f"no PLAIN entry for {method.value.upper()}"
    if not right:
        return "wrong password"
    if account.barred:
        return account.barred
    return "" if account.admits(request.client.host) else "address outside allow_nets"


@frozen
class FileSettings:
    """C{auth_file}: the file that holds the accounts."""

    path: str | None = directive("auth_file", path, None)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """What is wrong with the file: each line that is no account, by its number."""
        if self.path is None:
            return
        try:
            content, _ = _read(self.path)
        except OSError as error:
            yield server.problem("auth_file", f"cannot be read: {error.strerror}", self.path)
            return
        seen: dict[bytes, int] = {}
        for number, line in _numbered(content):
            user = line.partition(b":")[0]
            first = seen.setdefault(user.lower(), number)
            mistake = _mistake(line, server) if first == number else f"the user is that of line {first} already"
            if mistake:
                yield server.problem("auth_file", f"line {number} ({printable(user)}): {mistake}", self.path)


def _mistake(line: bytes, server: ServerSettings) -> str:
    try:
        homeless = parseAccount(line, server.protocol).backend is None and "proxy_pass" not in server.given
    except BadLine as error:
        return str(error)
    return "host is missing, and the server has no proxy_pass for accounts without one" if homeless else ""


_hashings: WeakKeyDictionary[Any, Hashing] = WeakKeyDictionary()
"""One for all servers on a reactor, whose threads they share."""


def build(server: ServerSettings, default: Backend | None, reactor: Any, journal: Journal) -> FileAuthenticator:
    """The authenticator of C{server}. C{default} is the backend of accounts without C{host}."""
    file = server[FileSettings].path
    if file is None:
        raise ValueError(f"server {server.name} has no auth_file")
    hashing = _hashings.setdefault(reactor, Hashing(reactor))
    return FileAuthenticator(AccountFile(file, reactor, journal), hashing, default, journal)


KIND = AuthenticatorKind(name="file", directive="auth_file", settings=FileSettings, methods=METHODS, build=build)
