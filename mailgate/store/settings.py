# -*- test-case-name: mailgate.test.store.test_settings -*-
"""
The directives of the store that several gateways share: C{store} and what goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, ClassVar

from attrs import field, frozen

from mailgate.directives import Problem, SectionSettings, directive, path, seconds
from mailgate.directives.needs import Need, given
from mailgate.store.address import StoreAddress, storeAddress
from mailgate.store.keys import StoreKeys
from mailgate.system.regularfiles import isOpenToAll, readRegular
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.certificatechecks import writableWarnings

__all__ = ["StoreAccess", "StoreSettings"]

_LEAST_SECRET = 16
_MOST = 4096


def _timeout(value: str, folder: str) -> float:
    given = seconds(value, folder)
    if not 0.005 <= given <= 1.0:
        raise ValueError("must be from 5ms to 1s")
    return given


_STORE = given("store")
_OVER_TLS = Need("a store of the form rediss://", lambda section: section[StoreSettings].usesTLS)


@frozen
class StoreAccess:
    """
    What the files of the store's directives contain.

    @ivar secret: what all gateways that share the store know.
    @ivar password: the password of the store; empty for none.
    @ivar trust: what Twisted takes as C{trustRoot}; L{None} for the system's authorities.
    """

    secret: bytes = field(repr=False)
    password: bytes = field(default=b"", repr=False)
    trust: Any = None


@frozen
class StoreSettings:
    """
    The store that gateways share.

    A keeper connects once, and keeps the files' contents: it may have given up the right to read them. So none of this
    changes by a reload.
    """

    needs: ClassVar[tuple[Need, ...]] = (_STORE,)

    address: StoreAddress | None = directive("store", storeAddress, None, secret=True, needs=(), reloadable=False)
    passwordFile: str | None = directive("store_password_file", path, None, reloadable=False)
    keyFile: str | None = directive("store_secret_file", path, None, reloadable=False)
    trusted: str | None = directive(
        "store_ssl_trusted_certificate", path, None, needs=(_STORE, _OVER_TLS), reloadable=False
    )
    timeout: float = directive("store_timeout", _timeout, 0.05, reloadable=False)

    @property
    def usesTLS(self) -> bool:
        """Whether the store is reached by TLS."""
        return self.address is not None and self.address.ssl

    @property
    def files(self) -> tuple[str, ...]:
        """The files that a start reads."""
        if self.address is None:
            return ()
        trusted = self.trusted if self.usesTLS else None
        return tuple(name for name in (self.keyFile, self.passwordFile, trusted) if name is not None)

    def access(self) -> StoreAccess:
        """
        Read the files as the current user of this process.

        @raise ValueError: a file cannot be used. The text names its option.
        """
        found = {}
        for option, filename, read in self._reading():
            try:
                found[option] = read()
            except OSError as error:
                raise ValueError(f"{option} {filename}: cannot be read: {error.strerror or error}") from None
            except ValueError as error:
                raise ValueError(f"{option} {filename}: {error}") from None
        return StoreAccess(*found.values())

    def tagKey(self) -> bytes | None:
        """
        Return the key of tags, with which all gateways recognise repeated passwords; L{None} without a store.

        @raise ValueError: the secret cannot be read.
        """
        if self.address is None:
            return None
        try:
            return StoreKeys(self._secret()).derived(b"tag")
        except (OSError, ValueError) as error:
            raise ValueError(f"store_secret_file {self.keyFile}: {error}") from None

    def _reading(self) -> Iterator[tuple[str, str | None, Callable[[], Any]]]:
        yield "store_secret_file", self.keyFile, self._secret
        yield "store_password_file", self.passwordFile, self._password
        yield "store_ssl_trusted_certificate", self.trusted, self._trust

    def _secret(self) -> bytes:
        if self.keyFile is None:
            raise ValueError("is missing")
        # An editor adds the end of a line, and openssl does.
        secret = readRegular(self.keyFile).strip()
        if not _LEAST_SECRET <= len(secret) <= _MOST:
            create = f"openssl rand -base64 32 > {self.keyFile}"
            raise ValueError(
                f"must contain {_LEAST_SECRET} to {_MOST} bytes; create it once for all gateways: {create}"
            )
        return secret

    def _password(self) -> bytes:
        if self.passwordFile is None:
            return b""
        password = readRegular(self.passwordFile).rstrip(b"\r\n")
        if not password or len(password) > _MOST or b"\n" in password:
            raise ValueError("must contain one line: the password of the store")
        return password

    def _trust(self) -> Any:
        return loadTrust(self.trusted) if self.usesTLS and self.trusted is not None else None

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """
        Yield what keeps the store from being used.

        @param section: the section C{[mailgate]}.
        """
        if self.address is None:
            return
        if find_spec("txredisapi") is None:
            message = 'needs the Python package txredisapi, which is missing; install "mailgate[redis]"'
            yield section.problem("store", message)
        for option in ("gateway_name", "store_secret_file"):
            if option not in section.given:
                yield section.problem(option, "is missing; store requires it")
        for option, filename, read in self._reading():
            if filename is None:
                continue
            try:
                read()
            except OSError as error:
                yield section.problem(option, f"cannot be read: {error.strerror or error}", filename)
            except ValueError as error:
                yield section.problem(option, str(error), filename)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """
        Yield which files other users can read or write.

        @param section: the section C{[mailgate]}.
        """
        if self.address is None:
            return
        secret = (("store_secret_file", self.keyFile), ("store_password_file", self.passwordFile))
        for option, filename in secret:
            if filename is not None and isOpenToAll(filename):
                message = f"every user on this host can read it; run: chmod o-r {filename}"
                yield section.problem(option, message, filename)
        trusted = ("store_ssl_trusted_certificate", self.trusted)
        yield from writableWarnings(section, [each for each in (*secret, trusted) if each[1] is not None])
