# -*- test-case-name: mailgate.test.keeper.answers.test_tickets -*-
"""
Takes the secrets of TLS ticket keys that several gateways share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.keeper.view import ANSWERERS, ProcessView

__all__ = ["MOST_SECRETS"]

MOST_SECRETS = 4
"""Secrets in one order. A server has twice as many contexts (L{mailgate.tls.tickets.SIZE})."""


def _take(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[bool]:
    """
    Use secrets. The argument is C{secrets}: hexadecimal, the first for new tickets. Yields for each gateway of the
    process whether its servers use them.
    """
    secrets = arguments.get("secrets")
    if not isinstance(secrets, list) or not 0 < len(secrets) <= MOST_SECRETS:
        raise ValueError(f"secrets must be a list of 1 to {MOST_SECRETS}")
    try:
        found = [bytes.fromhex(each) for each in secrets]
    except (TypeError, ValueError):
        # The reason must not quote it.
        raise ValueError("secrets must be hexadecimal") from None
    return (gateway.giveTicketKeys(found) for gateway in view.gateways())


ANSWERERS["tickets"] = _take
