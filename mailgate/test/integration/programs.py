# -*- test-case-name: mailgate.test.integration.test_programs -*-
"""
The programs that these tests need. If one is missing, a test is skipped with a reason, or, with
C{MAILGATE_INTEGRATION=required} in the environment, fails with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from unittest import SkipTest

from attrs import frozen

__all__ = ["PROGRAMS", "Program", "missing", "programPath", "require"]

PATH = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        *("/usr/sbin", "/sbin", "/usr/lib/dovecot", "/usr/libexec/dovecot"),
        *("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"),
    ]
)
"""The path to search: an ordinary user's PATH often lacks the folders with servers and their modules."""


@frozen
class Program:
    """
    A program.

    @ivar file: its name on the disk.
    @ivar package: the Debian package that contains it.
    @ivar isModule: whether another program loads it, so that it need not be executable.
    """

    file: str
    package: str
    needsRoot: bool = False
    isModule: bool = False

    @property
    def mode(self) -> int:
        """What L{os.access} has to allow."""
        return os.R_OK if self.isModule else os.X_OK


PROGRAMS = {
    "dovecot": Program("dovecot", "dovecot-core"),
    "dovecot-imap": Program("imap-login", "dovecot-imapd"),
    "dovecot-pop3": Program("pop3-login", "dovecot-pop3d"),
    "dovecot-sieve": Program("managesieve-login", "dovecot-managesieved"),
    "pigeonhole": Program("sievec", "dovecot-sieve"),
    "postfix": Program("postfix", "postfix", needsRoot=True),
    "curl": Program("curl", "curl"),
    "swaks": Program("swaks", "swaks"),
    "mbsync": Program("mbsync", "isync"),
    "sieve-connect": Program("sieve-connect", "sieve-connect"),
    "openssl": Program("openssl", "openssl"),
    "logrotate": Program("logrotate", "logrotate"),
    "nginx": Program("nginx", "nginx"),
    "nginx-mail": Program("ngx_mail_module.so", "libnginx-mod-mail", isModule=True),
    "fail2ban-regex": Program("fail2ban-regex", "fail2ban"),
    "promtool": Program("promtool", "prometheus"),
    "chromium": Program("chromium", "chromium"),
    "chromedriver": Program("chromedriver", "chromium-driver"),
    "tmux": Program("tmux", "tmux"),
    "redis-server": Program("redis-server", "redis-server"),
    "systemd-analyze": Program("systemd-analyze", "systemd"),
}


def programPath(name: str) -> str | None:
    """The path of C{name} of L{PROGRAMS}, or L{None}."""
    program = PROGRAMS[name]
    return shutil.which(program.file, program.mode, PATH)


def missing(
    names: tuple[str, ...], find: Callable[[str], str | None] = programPath, user: Callable[[], int] = os.geteuid
) -> str | None:
    """Why tests that need C{names} cannot run, in one sentence; L{None} if they can."""
    programs = {name: PROGRAMS[name] for name in names}
    packages = [program.package for name, program in programs.items() if find(name) is None]
    if packages:
        return f"needs {', '.join(packages)}: install Debian's package of that name"
    if user() != 0:
        rootOnly = [name for name, program in programs.items() if program.needsRoot]
        if rootOnly:
            return f"{', '.join(rootOnly)} can be started by root only"
    return None


def require(
    *names: str,
    environ: Mapping[str, str] = os.environ,
    find: Callable[[str], str | None] = programPath,
    user: Callable[[], int] = os.geteuid,
) -> None:
    """
    Do nothing if all of C{names} of L{PROGRAMS} can run.

    @raise SkipTest: one of them cannot run.
    @raise AssertionError: one of them cannot run, and C{MAILGATE_INTEGRATION} is C{required}.
    """
    reason = missing(names, find, user)
    if reason is None:
        return
    if environ.get("MAILGATE_INTEGRATION") == "required":
        raise AssertionError(f"MAILGATE_INTEGRATION=required, but this test {reason}")
    raise SkipTest(reason)
