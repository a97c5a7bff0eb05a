# -*- test-case-name: mailgate.test.scram.test_preparing -*-
"""
SASLprep (RFC 4013): equal passwords become equal bytes, however the keyboards of their users encode them.
"""

from __future__ import annotations

import stringprep

from twisted.words.protocols.jabber import xmpp_stringprep as profiles

__all__ = ["prepared"]


class _Spaces:
    """Maps spaces other than that of ASCII to it (RFC 4013, section 2.1)."""

    def map(self, character: str) -> str:
        """
        Map a character.

        @param character: the character.
        """
        return " " if stringprep.in_table_c12(character) else character


_PROFILE = profiles.Profile(
    mappings=[_Spaces(), profiles.B_1],
    prohibiteds=[
        *(profiles.C_12, profiles.C_21, profiles.C_22, profiles.C_3, profiles.C_4, profiles.C_5),
        *(profiles.C_6, profiles.C_7, profiles.C_8, profiles.C_9),
    ],
)


def prepared(password: bytes) -> bytes:
    """
    Prepare a password for SCRAM (RFC 5802, section 2.2).

    @param password: the password.
    @return: the prepared password in UTF-8. A password that SASLprep does not allow, such as one that is no UTF-8,
        stays as it is, as in PostgreSQL: its user can log in with every client that does the same.
    """
    if password.isascii() and password.isalnum():
        return password
    try:
        text: str = _PROFILE.prepare(password.decode("utf-8"))
    except UnicodeError:
        return password
    return text.encode("utf-8") or password
