# -*- test-case-name: mailgate.test.auth.passwdfile.test_scram -*-
"""
The secrets of accounts for SCRAM (RFC 5802): from the file, or derived from plain passwords.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import evolve, field, frozen

from mailgate.auth.passwdfile.passwords import Password
from mailgate.login import Method, ScramSecret
from mailgate.scram.secrets import LEAST_ITERATIONS, derivedSecret, fakeSecret, saltFor

__all__ = ["Making", "canProve", "secretFor"]


@frozen
class Making:
    """
    How the gateway makes secrets.

    @ivar key: the secret of the gateway from which salts are made, as bytes.
    @ivar iterations: the number of iterations.
    """

    key: bytes = field(default=b"", repr=False)
    iterations: int = LEAST_ITERATIONS


def canProve(password: Password, method: Method) -> bool:
    """
    Return whether a client can prove a password by SCRAM.

    @param password: the password.
    @param method: the login method.
    """
    return password.plain is not None or (password.scram is not None and password.scram.method is method)


def secretFor(
    password: Password | None, decoy: Password | None, method: Method, user: bytes, making: Making
) -> ScramSecret | Callable[[], ScramSecret]:
    """
    Return the secret of a user. A user without one gets a fake that looks like the secrets of the others, and costs the
    same work.

    @param password: the password of the account; L{None} for unknown users and locked accounts.
    @param decoy: a password of the most frequent scheme; L{None} if there is none.
    @param method: the login method.
    @param user: the user name as the client gives it.
    @param making: how the gateway makes secrets.
    @return: the secret, or a function that computes it in a thread.
    """
    salt = partial(saltFor, making.key, method, user)
    work = None
    if decoy is not None and decoy.plain is not None:
        # Most users have a plain password.
        work = partial(derivedSecret, method, decoy.plain, salt(), making.iterations)
    if password is not None and canProve(password, method):
        if password.scram is None:
            return partial(_derived, method, password.plain or b"", salt(), making.iterations)
        secret = password.scram
    elif decoy is not None and decoy.scram is not None and decoy.scram.method is method:
        usual = decoy.scram
        secret = fakeSecret(making.key, method, user, usual.iterations, min(len(usual.salt), 64))
    else:
        secret = fakeSecret(making.key, method, user, making.iterations)
    return secret if work is None else partial(_afterWork, work, secret)


def _derived(method: Method, password: bytes, salt: bytes, iterations: int) -> ScramSecret:
    # The plain password logs in at the backend, so that its key is not needed.
    return evolve(derivedSecret(method, password, salt, iterations), clientKey=None)


def _afterWork(work: Callable[[], object], secret: ScramSecret) -> ScramSecret:
    work()
    return secret
