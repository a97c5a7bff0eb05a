"""
For tests that count the open descriptors of their process.
"""

from __future__ import annotations

import gc

from mailgate.test.integration.daemon import stopShared

__all__ = ["settleDescriptors"]


def settleDescriptors() -> None:
    """
    Let nothing of earlier tests open or close descriptors from now on: backends of shared gateways, which serve in
    threads of this process, and objects that are not collected yet.
    """
    stopShared()
    gc.collect()
