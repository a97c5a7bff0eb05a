# -*- test-case-name: mailgate.test.limits.test_loginguard -*-
"""
What a login has learned from the keeper.
"""

from __future__ import annotations

from attrs import define

__all__ = ["Asked"]


@define
class Asked:
    """
    What the record of a connection has of the keeper's answers, from the login until the relay. Only a login that has
    waited, or whose user has sessions at other gateways, has one.

    @ivar user: the canonical name of the user.
    @ivar elsewhere: how many sessions the user has at other gateways.
    @ivar fromAddress: how many of them from the client's address.
    @ivar waited: for how many seconds the login has waited for answers, if that matters.
    """

    user: bytes = b""
    elsewhere: int = 0
    fromAddress: int = 0
    waited: float = 0.0
