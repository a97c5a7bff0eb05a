# -*- test-case-name: mailgate.test.keeper.admin.test_endpoints -*-
"""
The parameters of the admin server's endpoints: their form, and those that several endpoints have in common.
"""

from __future__ import annotations

from attrs import frozen

from mailgate.keeper.blocks import LONGEST_BLOCK, LONGEST_HOLD

__all__ = ["BLOCKING", "BLOCK_REASON", "FILTERS", "REASON", "Parameter"]


@frozen
class Parameter:
    """
    A parameter of a query, or a field of the JSON object in the body of a request.

    @ivar name: its name.
    @ivar kind: C{str}, C{float} (a number, 0 or more), C{int} (a whole number, 0 or more) or C{bool}.
    @ivar help: what it is for, in a few words.
    @ivar isRequired: whether it must be there.
    @ivar most: the largest number.
    @ivar least: the smallest number.
    """

    name: str
    kind: type
    help: str
    isRequired: bool = False
    most: float = 10**9
    least: float = 0


FILTERS: tuple[Parameter, ...] = (
    Parameter("user", str, "user name; * and ? are wildcards, upper and lower case are the same"),
    Parameter("address", str, "address of the client, or its network, such as 192.0.2.0/24"),
    Parameter("backend", str, "address of the backend, such as 10.0.0.1:143"),
    Parameter("protocol", str, "name of the protocol: imap, pop3, smtp or sieve"),
    Parameter("server", str, "name of the server section"),
    Parameter("phase", str, "phase of the session, such as relay"),
    Parameter("id", str, "id of the session"),
    Parameter("older", float, "seconds: only sessions that are older"),
    Parameter("stuck", float, "seconds: only logins that have been under way for longer"),
)
"""The parameters that choose sessions."""

BLOCKING = (
    Parameter(
        *("hold", float, "seconds for which the logins of the user are held; user must be the only filter"),
        most=int(LONGEST_HOLD),
    ),
    Parameter(
        *(
            "block",
            float,
            "seconds for which the user or address is blocked; these must be the only filters",
        ),
        most=int(LONGEST_BLOCK),
    ),
)
"""The parameters that also keep the users from logging in again."""

BLOCK_REASON = Parameter("reason", str, "why, for the list of blocks and for the log")

REASON = Parameter("reason", str, "why, for the log and for the story of the session")
