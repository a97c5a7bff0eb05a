# -*- test-case-name: mailgate.test.integration -*-
"""
A Dovecot of the tests in a folder of its own: IMAP and POP3, with STARTTLS and with implicit TLS, and its SASL service
for Postfix. Any user exists, with the password L{PASSWORD} and an empty mailbox. L{MASTER} may open every mailbox, with
the authorization identity of SASL. Clients that ask for the host C{expired.example} or C{self-signed.example} (SNI) get
such a certificate.

Written for Dovecot 2.3. Dovecot 2.4 has another configuration.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import Daemon, freePort, newFolder
from mailgate.test.integration.programs import programPath

__all__ = ["GUARDED", "MASTER", "PASSWORD", "USERS", "Dovecot", "mailOwner"]

PASSWORD = "wonderland"
"""The password of all users at the backends."""

MASTER = "administrator"
"""A user who may log in as any other user, with the password C{MASTER}."""

USERS = tuple(f"user{number}" for number in range(400))
"""Names of accounts: enough for each test to use a new one."""

NOBODY = 65534

_PORTS = ("imap", "imaps", "pop3", "pop3s", "haproxy")

_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
auth_verbose = yes
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{pair.certificate}
ssl_key = <{pair.key}
local_name expired.example {{
  ssl_cert = <{expired.certificate}
  ssl_key = <{expired.key}
}}
local_name self-signed.example {{
  ssl_cert = <{selfSigned.certificate}
  ssl_key = <{selfSigned.key}
}}
disable_plaintext_auth = no
auth_mechanisms = plain login
# A wrong password causes no delay here: neither this one nor anvil's growing one.
auth_failure_delay = 0
mail_max_userip_connections = 1000
mail_location = maildir:~/Maildir
haproxy_trusted_networks = 127.0.0.1
first_valid_uid = 1
first_valid_gid = 0
passdb {{
  driver = passwd-file
  args = {folder}/masters
  master = yes
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%n
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
  inet_listener imap_haproxy {{
    port = {haproxy}
    haproxy = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {folder}/sasl {{
    mode = 0666
  }}
}}
"""

GUARDED = """
login_trusted_networks = 127.0.0.1
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0600
  }
}
"""
"""
Lets Dovecot believe a gateway at 127.0.0.1 about the client's address, and delay logins from an address after failures.
"""

# A user who cannot change the root folder cannot change users either.
_ORDINARY_USER = """
default_login_user = {name}
default_internal_user = {name}
default_internal_group = {group}
service imap-login {{
  chroot =
}}
service pop3-login {{
  chroot =
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


def mailOwner() -> tuple[int, int]:
    """The user and group ids that own mailboxes: nobody if root runs the tests, else those of this process."""
    return (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


class Dovecot:
    """
    A running Dovecot.

    @ivar ports: the ports of C{imap}, C{imaps}, C{pop3} and C{pop3s} at 127.0.0.1; C{haproxy} is IMAP after a PROXY
        header.
    @ivar listening: the names of those ports that a subclass listens on.
    @ivar folder: its folder. The mailbox of joe is the maildir C{mail/joe/Maildir} in it.
    @ivar sasl: the socket of its SASL service.
    @param more: additional lines of its configuration.
    """

    listening: tuple[str, ...] = _PORTS

    def __init__(self, authority: Authority, more: str = "") -> None:
        self._more = more
        self.folder = newFolder("dovecot")
        self.ports = {name: freePort() for name in dict.fromkeys((*_PORTS, *self.listening))}
        self.sasl = os.path.join(self.folder, "sasl")
        self.mail = os.path.join(self.folder, "mail")
        # Dovecot's login processes and Postfix's delivery run as other users.
        os.chmod(self.folder, 0o755)
        os.mkdir(self.mail)
        os.chown(self.mail, *mailOwner())
        configuration = os.path.join(self.folder, "dovecot.conf")
        with open(configuration, "w") as file:
            file.write(self._configuration(authority))
        with open(os.path.join(self.folder, "masters"), "w") as file:
            file.write(f"{MASTER}:{{PLAIN}}{MASTER}\n")
        program = programPath("dovecot")
        assert program is not None
        self._daemon = Daemon([program, "-F", "-c", configuration], os.path.join(self.folder, "output"))
        self._daemon.ready(*(self.ports[name] for name in self.listening))

    def _configuration(self, authority: Authority) -> str:
        uid, gid = mailOwner()
        # Another Dovecot of the same authority reads its own files again whenever one of its processes starts.
        name = "dovecot-more" if self._more else "dovecot"
        text = _CONFIGURATION.format(
            folder=self.folder,
            pair=authority.sign(name),
            expired=authority.sign(f"{name}-expired", isExpired=True),
            selfSigned=authority.sign(f"{name}-self-signed", isSelfSigned=True),
            password=PASSWORD,
            uid=uid,
            gid=gid,
            **self.ports,
        )
        text += self._more % self.ports if "%(" in self._more else self._more
        if os.geteuid() != 0:
            text += _ORDINARY_USER.format(name=pwd.getpwuid(uid).pw_name, group=grp.getgrgid(gid).gr_name)
        return text

    def log(self) -> str:
        """Its log."""
        with open(os.path.join(self.folder, "dovecot.log"), errors="backslashreplace") as file:
            return file.read()

    def stop(self) -> None:
        """Stop it, and remove all mail."""
        self._daemon.end()
        shutil.rmtree(self.folder, ignore_errors=True)
