# -*- test-case-name: mailgate.test.auth.passwdfile -*-
"""
The authenticator of C{auth_file}: accounts in Dovecot's passwd-file format, one per line::

    user:{SCHEME}hash:uid:gid:gecos:home:shell:host=10.0.0.1 port=143 ssl=yes

U{The format<https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/>} and the extra fields are
those of Dovecot 2.3. The differences are stricter: an empty password never matches, not even with C{nopassword}, and a
line with a mistake in a supported field is invalid. User names are compared without regard to the case of ASCII
letters; Dovecot converts only the client's name to lower case.

The supported extra fields are C{host}, C{port}, C{ssl}, C{starttls}, C{destuser}, C{pass}, C{allow_nets}, C{nologin}
and C{fail}; others are ignored. Values may contain C{%u}, C{%n}, C{%d} and C{%%}. An account without C{host} uses the
backend of C{proxy_pass}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.auth.fairqueue import PAUSE, Overloaded
from mailgate.auth.passwdfile.accountfile import AccountFile, numberedLines, readAccounts
from mailgate.auth.passwdfile.accounts import Account, BadLine, parseAccount
from mailgate.auth.passwdfile.crypt3 import HashFailed
from mailgate.auth.passwdfile.hashing import Hashing, Proof, RightPasswords
from mailgate.auth.passwdfile.passwords import expense
from mailgate.auth.passwdfile.scramsecrets import Making, canProve, secretFor
from mailgate.directives import GatewaySettings, Problem, ServerSettings, directive, path, seconds
from mailgate.directives.needs import Need, given
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.limits.settings import LimitSettings
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, ScramSecret, Trouble, fitForWire
from mailgate.scram.settings import ScramKey, ScramSettings
from mailgate.system.processors import WorkerSettings, processors
from mailgate.system.regularfiles import isOpenToAll
from mailgate.tls.backendsettings import BackendTLSSettings

__all__ = ["KIND", "FileAuthenticator", "FileSettings", "Foreseen"]

MOST_HASHES = 256  # hashes at a time: each needs a thread, and for Argon2 64 MiB or more
MOST_WARNINGS = 10  # lines of a file with a warning of their own

METHODS = frozenset({Method.PLAIN, Method.CRAM_MD5, Method.APOP, Method.SCRAM_SHA_256, Method.SCRAM_SHA_1})


@frozen
class Foreseen:
    """
    What a login with the right password would get.

    @ivar objection: why it would be refused; empty if it would be accepted.
    @ivar hasChanged: whether the file has changed since it was read. The next login reads it first.
    @ivar backend: the backend of the account; L{None} if there is none.
    @ivar user: the user name for the backend.
    """

    objection: str
    hasChanged: bool
    backend: Destination | None = None
    user: bytes = b""


@implementer(IAuthenticator)
class FileAuthenticator:
    """
    Judges logins with an account file. All refusals look the same to the client, and cost the same work.

    @param file: the account file.
    @param hashing: computes slow hashes in threads.
    @param right: recent passwords that matched; L{None} with C{auth_file_cache_ttl = 0}.
    @param clientOf: C{clientOf(request)} names the client that a login counts for in the queue for hashes.
    @param default: the backend of accounts without C{host}; L{None} without C{proxy_pass}.
    @param journal: the log.
    @param making: how the gateway makes secrets for SCRAM; L{None} for the defaults.
    """

    def __init__(
        self,
        file: AccountFile,
        hashing: Hashing,
        right: RightPasswords | None,
        clientOf: Callable[[LoginRequest], str],
        default: Destination | None,
        journal: Journal,
        making: Making | None = None,
    ) -> None:
        self._file = file
        self._making = making or Making()
        self._hashing = hashing
        self._right = right
        self._clientOf = clientOf
        self._default = default
        self._journal = journal

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """
        Judge a login by the current content of the file. See L{IAuthenticator.authenticate}.

        @param request: the login.
        """
        credentials = request.credentials
        if not self._file.refresh():
            return succeed(Denial(Trouble.TEMPORARY, reason="cannot read auth_file"))
        if credentials.method.isScram:
            return self._secretFor(request)
        if credentials.method not in METHODS or not credentials.secret:
            return succeed(_refused("no password"))
        if not fitForWire(credentials.user, credentials.secret):
            # A hash function may stop at such a byte: the rest would reach the backend unchecked.
            return succeed(_refused("CR, LF or NUL in the credentials"))
        found = self._find(request)
        right = self._compare(request, found)
        return right.addCallbacks(partial(self._decide, request, found), partial(self._undecided, request, found))

    def foresee(self, user: bytes, protocol: str, host: str | None) -> Foreseen:
        """
        Return what a login with the right password would get, by the file as it was read last. Nothing is logged.

        @param user: the user name.
        @param protocol: the protocol of the server.
        @param host: the address of the client; L{None} for any.
        """
        hasChanged = self._file.hasChanged
        try:
            account = self._file.find(user, protocol)
        except BadLine as error:
            return Foreseen(f"unusable line: {error}", hasChanged)
        if account is None:
            return Foreseen("unknown user", hasChanged)
        objection = "locked account" if account.password is None else account.barred
        if not objection and host is not None and not account.admits(host):
            objection = "address outside allow_nets"
        return Foreseen(objection, hasChanged, account.backend or self._default, account.destUser or account.user)

    def close(self) -> None:
        """Forget which passwords matched."""
        if self._right is not None:
            self._right.clear()

    def _find(self, request: LoginRequest) -> Account | str:
        """Return the account, or why there is none."""
        user = request.credentials.user
        try:
            return self._file.find(user, request.protocol) or "unknown user"
        except BadLine as error:
            self._file.report(request, user, str(error))
            return "unusable line"

    def _secretFor(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Return a route with the secret of the account for SCRAM, or a refusal with one that no password has."""
        given = request.credentials
        if not fitForWire(given.user):
            return succeed(_refused("CR, LF or NUL in the credentials"))
        found = self._find(request)
        password = None if isinstance(found, str) else found.password
        secret = secretFor(password, self._file.decoy, given.method, given.user, self._making)
        if isinstance(secret, ScramSecret):
            return succeed(self._withSecret(request, found, secret))
        derived = self._hashing.run(self._clientOf(request), secret)
        return derived.addCallbacks(
            lambda secret: self._withSecret(request, found, secret), partial(self._undecided, request, found)
        )

    def _withSecret(self, request: LoginRequest, found: Account | str, secret: ScramSecret) -> Route | Denial:
        method = request.credentials.method
        if isinstance(found, Account) and found.password is not None and not canProve(found.password, method):
            name = method.value.upper()
            answer: Route | Denial = _refused(f"{name} needs a PLAIN or {name} password in auth_file")
        else:
            # The client's proof is judged later.
            answer = self._decide(request, found, right=True)
        return evolve(answer, scram=secret)

    def _compare(self, request: LoginRequest, found: Account | str) -> Deferred[bool]:
        credentials = request.credentials
        password = None if isinstance(found, str) else found.password
        compared = password or self._file.decoy
        if compared is None:
            return succeed(False)
        if credentials.method.isDigest:
            return succeed(compared.answers(credentials.method, credentials.salt, credentials.secret))
        check = partial(compared.matches, credentials.secret)
        if not compared.slow:
            return succeed(check())
        proof = None
        if self._right is not None:
            # Unknown users are looked up as well, so that both cases take the same time.
            user = found.user if isinstance(found, Account) else credentials.user
            proof = self._right.proof(user, compared.stored, credentials.secret)
            if self._right.holds(proof) and password is not None:
                return succeed(True)
        hashed = self._hashing.run(self._clientOf(request), check)
        return hashed if proof is None or password is None else hashed.addCallback(self._remember, proof)

    def _remember(self, right: bool, proof: Proof) -> bool:
        if right and self._right is not None:
            self._right.add(proof)
        return right

    def _decide(self, request: LoginRequest, found: Account | str, right: bool) -> Route | Denial:
        against = found if isinstance(found, str) else _objection(found, request, right)
        if isinstance(found, str) or against:
            return _refused(against)
        backend = found.backend or self._default
        if backend is None:
            self._file.report(request, found.user, "the account has no host and the server has no proxy_pass")
            return Denial(Trouble.TEMPORARY, reason="no backend: neither host nor proxy_pass is set")
        given = request.credentials
        isProof = given.method.isDigest or given.method.isScram
        plain = found.password.plain if isProof and found.password else given.secret
        backendPassword = plain if found.backendPassword is None else found.backendPassword
        return Route((backend,), found.destUser or found.user, backendPassword)

    def _undecided(self, request: LoginRequest, found: Account | str, failure: Failure) -> Denial:
        if failure.check(HashFailed):
            if isinstance(found, str) or found.password is None:
                # The hash of another user was computed as a decoy; its failure does not concern this account.
                return _refused(found if isinstance(found, str) else "locked account")
            self._file.report(request, found.user, f"cannot compute the hash of the password: {failure.value}")
            return Denial(Trouble.TEMPORARY, reason="cannot compute the hash of the password")
        wait = PAUSE if failure.trap(Overloaded, TimeoutError) is Overloaded else 0.0
        self._hashing.unserved(self._journal)
        return Denial(Trouble.TEMPORARY, wait=wait, reason="too many logins wait for a password hash")


def _refused(reason: str) -> Denial:
    # Not isUnknownUser for missing accounts: nothing, not even a limit, may differ for them.
    return Denial(Trouble.DENIED, reason=reason)


def _objection(account: Account, request: LoginRequest, right: bool) -> str:
    """Return why the login is refused, for the log; empty if it is accepted."""
    method = request.credentials.method
    if account.password is None:
        return "locked account"
    if method.isDigest and account.password.plain is None:
        name = method.value.upper()
        return f"{name} needs a PLAIN password in auth_file"
    if not right:
        return "wrong password"
    if account.barred:
        return account.barred
    return "" if account.admits(request.client.host) else "address outside allow_nets"


def _hashes(value: str, folder: str) -> int:
    if value == "auto":
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= MOST_HASHES:
        raise ValueError(f'must be "auto" or a number from 1 to {MOST_HASHES}')
    return int(value)


@frozen
class FileSettings:
    """
    The directives of C{auth_file}: the account file, how many slow hashes each process computes at a time (0 means
    C{auto}), and for how many seconds a matching password is remembered.

    All servers of a process share the threads for hashes, so C{auth_file_max_hashes} must be the same for all: see
    L{conflicts}.
    """

    needs: ClassVar[tuple[Need, ...]] = (given("auth_file"),)

    path: str | None = directive("auth_file", path, None)
    mostHashes: int = directive("auth_file_max_hashes", _hashes, 0)
    cacheTTL: float = directive("auth_file_cache_ttl", seconds, 300.0)

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """
        Find servers whose C{auth_file_max_hashes} differs from that of the server before them.

        @param settings: the settings of all servers.
        """
        inFile = [server for server in settings.servers if server[cls].path is not None]
        for before, server in pairwise(inFile):
            most, other = server[cls].mostHashes, before[cls].mostHashes
            if most != other:
                theirs = other or "auto"
                message = f"must be equal in all servers, but server {before.name} has {theirs}; set it once, in [mail]"
                yield server.problem("auth_file_max_hashes", message, str(most or "auto"))

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Check the account file, and report each invalid line by its number.

        @param server: the settings of the server.
        """
        if self.path is None:
            return
        try:
            content, _ = readAccounts(self.path)
        except OSError as error:
            yield server.problem("auth_file", f"cannot be read: {error.strerror}", self.path)
            return
        seen: dict[bytes, int] = {}
        for number, line in numberedLines(content):
            user = line.partition(b":")[0]
            first = seen.setdefault(user.lower(), number)
            mistake = _mistake(line, server) if first == number else f"the user has an account in line {first} already"
            if mistake:
                yield server.problem("auth_file", f"line {number} ({printable(user)}): {mistake}", self.path)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Warn if other users can read the file, and of lines with unusually slow hashes.

        @param server: the settings of the server.
        """
        if self.path is None:
            return
        if isOpenToAll(self.path):
            file = self.path
            yield server.problem("auth_file", f"every user on this host can read it; run: chmod o-r {file}", file)
        try:
            content, _ = readAccounts(self.path)
        except OSError:
            # Reported as a problem.
            return
        count = 0
        for number, line in numberedLines(content):
            user, password, *_ = [*line.split(b":", 2), b""]
            slow = expense(password)
            count += bool(slow)
            if slow and count <= MOST_WARNINGS:
                yield server.problem("auth_file", f"line {number} ({printable(user)}): the password {slow}", self.path)
        more = count - MOST_WARNINGS
        if more > 0:
            yield server.problem("auth_file", f"{more} more lines have slow password hashes", self.path)


def _isImplicit(server: ServerSettings) -> bool:
    """Whether C{server} speaks TLS from the first byte to backends of accounts that do not say."""
    return server[BackendTLSSettings].mode == "on"


def _mistake(line: bytes, server: ServerSettings) -> str:
    try:
        backend = parseAccount(line, server.protocol, server.ports, _isImplicit(server)).backend
    except BadLine as error:
        return str(error)
    isHomeless = backend is None and "proxy_pass" not in server.given
    return "host is missing, and the server has no proxy_pass as a default" if isHomeless else ""


_hashings: WeakValueDictionary[tuple[int, int], Hashing] = WeakValueDictionary()
"""
The L{Hashing} that all servers of a reactor share, by the C{id} of the reactor and the number of hashes at a time.
"""


def _hashingOf(server: ServerSettings, reactor: Any) -> Hashing:
    # Each worker has its own threads. One processor is left free for everything else.
    places = server[FileSettings].mostHashes or max(1, (processors() - 1) // server[WorkerSettings].count)
    key = (id(reactor), places)
    found = _hashings.get(key)
    if found is None:
        found = _hashings[key] = Hashing(places, reactor)
    return found


def build(server: ServerSettings, default: Destination | None, reactor: Any, journal: Journal) -> FileAuthenticator:
    """
    Make the authenticator of a server.

    @param server: the settings of the server.
    @param default: the backend of accounts without C{host}.
    @param reactor: the reactor, whose threads compute hashes.
    @param journal: the log.
    @raise ValueError: the server has no C{auth_file}.
    """
    settings = server[FileSettings]
    if settings.path is None:
        raise ValueError(f"server {server.name} has no auth_file")
    right = RightPasswords(settings.cacheTTL, reactor, os.urandom) if settings.cacheTTL else None
    file = AccountFile(settings.path, reactor, journal, server.ports, _isImplicit(server))
    clientOf = server[LimitSettings].clientOf
    hashing = _hashingOf(server, reactor)
    making = Making(server[ScramKey].value, server[ScramSettings].iterations)
    return FileAuthenticator(file, hashing, right, clientOf, default, journal, making)


KIND = AuthenticatorKind(name="file", directive="auth_file", settings=FileSettings, methods=METHODS, build=build)
