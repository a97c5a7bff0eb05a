# -*- test-case-name: bench.test.test_guessing -*-
"""
Account files for auth_file, with passwords that cost more or less to compare.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from bench.processes import BenchmarkError
from bench.proxies import writeFile

__all__ = ["PASSWORD", "WATCHER", "ownerName", "writeAccounts"]

PASSWORD = "secret"
"""The password of every account."""

WATCHER = "watcher"
"""An account whose password costs nothing to compare."""


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise BenchmarkError(f"{name} is not installed: pip install mailgate[bench]") from error


def _ssha512() -> str:
    salt = os.urandom(8)
    digest = hashlib.sha512(PASSWORD.encode("ascii") + salt).digest()
    return "{SSHA512}" + base64.b64encode(digest + salt).decode("ascii")


def _sha512Crypt() -> str:
    hashed: str = _library("passlib.hash").sha512_crypt.using(rounds=5000).hash(PASSWORD)
    return "{SHA512-CRYPT}" + hashed


def _bcrypt(cost: int) -> str:
    bcrypt = _library("bcrypt")
    hashed: bytes = bcrypt.hashpw(PASSWORD.encode("ascii"), bcrypt.gensalt(cost))
    return "{BLF-CRYPT}" + hashed.decode("ascii")


_SCHEMES: dict[str, Callable[[], str]] = {
    "plain": lambda: "{PLAIN}" + PASSWORD,
    "ssha512": _ssha512,
    "sha512-crypt": _sha512Crypt,
    "bcrypt5": lambda: _bcrypt(5),
    "bcrypt12": lambda: _bcrypt(12),
}
"""Functions that make the text of a new password, each with its own salt, by the names in L{bench.options.SCHEMES}."""


def ownerName(number: int) -> str:
    """The name of an account; the first number is 0."""
    return f"owner{number}"


def writeAccounts(folder: str, scheme: str, owners: int) -> str:
    """
    Write accounts for a number of owners, and one for the L{WATCHER}.

    @return: the path of the file.
    @raise BenchmarkError: a library for these passwords is not installed.
    """
    # The owners come first: their scheme must be the commonest, which is computed for unknown names.
    lines = [f"{ownerName(number)}:{_SCHEMES[scheme]()}" for number in range(owners)]
    return writeFile(folder, f"{scheme}.passwd", "\n".join([*lines, f"{WATCHER}:{{PLAIN}}{PASSWORD}", ""]))
