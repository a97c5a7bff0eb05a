# -*- test-case-name: mailgate.test.process.workers.test_zygote -*-
"""
The old name of L{mailgate.process.workers.zygote}. Masters of earlier releases start this module. It reports, on
standard error and in a message that these masters understand, that another release is installed now, and exits. The
next release removes this module.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mailgate.process.workers.messages import Failed, encode, otherRelease
from mailgate.system.exitstatus import CANNOT_SERVE

__all__ = ["main"]

_REPORTS = 4


def main() -> int:
    """Refuse to be a zygote; return the exit status."""
    reason = otherRelease()
    print(reason, file=sys.stderr, flush=True)
    with suppress(OSError):
        os.write(_REPORTS, encode(Failed(reason)))
    return CANNOT_SERVE


if __name__ == "__main__":
    sys.exit(main())
