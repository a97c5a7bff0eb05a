"""
The parsers that are fuzzed. A new one gets a L{mailgate.test.fuzz.frame.Target} in one of these modules.
"""

from __future__ import annotations

from mailgate.test.fuzz.targets import backends, clients, files, network, sasl, scram

__all__ = ["TARGETS"]

TARGETS = (*clients.TARGETS, *sasl.TARGETS, *scram.TARGETS, *backends.TARGETS, *network.TARGETS, *files.TARGETS)
"""All targets, in the order in which the command runs them."""
