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
"""The right one, of every account."""

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
"""What makes the text of a new password, each with a salt of its own, by the names in L{bench.options.SCHEMES}."""


def ownerName(number: int) -> str:
    """The name of an account; the first is 0."""
    return f"owner{number}"


def writeAccounts(folder: str, scheme: str, owners: int) -> str:
    """
    Write accounts for so many owners, and one for the L{WATCHER}; gives the file's path.

    @raise BenchmarkError: what makes such passwords is not installed.
    """
    # The owners first: their scheme is to be the commonest, which is what is computed for a name that does not exist.
    lines = [f"{ownerName(number)}:{_SCHEMES[scheme]()}" for number in range(owners)]
    return writeFile(folder, f"{scheme}.passwd", "\n".join([*lines, f"{WATCHER}:{{PLAIN}}{PASSWORD}", ""]))
