# -*- test-case-name: mailgate.test.system.test_namelessfile -*-
"""
Files without a name, for memory that processes share: it is passed on as a descriptor, and gone when the last process
closes it.
"""

from __future__ import annotations

import os
import tempfile

__all__ = ["namelessFile"]


def namelessFile(name: str, size: int) -> int:
    """
    Return the descriptor of a new file that reads as zeros. Its pages take memory only once they are written. The
    caller closes it.

    @param name: its name in lists of open files, where the system has such files (memfd_create(2)).
    @param size: its size in bytes.
    @raise OSError: the system makes no file.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as opened:
            descriptor = os.dup(opened.fileno())
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
