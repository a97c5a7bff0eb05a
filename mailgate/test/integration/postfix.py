# -*- test-case-name: mailgate.test.integration -*-
"""
A Postfix of the tests with its own configuration and queue. Mail for the C{USERS} of
L{mailgate.test.integration.dovecot} at example.com goes into their maildirs. The mail for bjørn.joe is joe's.

Its services: C{trusting} accepts mail from 127.0.0.1 without a login and offers XCLIENT, like the backend of a gateway.
C{sasl} requires a login (PLAIN or LOGIN, judged by Dovecot) and offers no XCLIENT. C{login} is the same with LOGIN
only. C{smtps} is C{sasl} with implicit TLS.

Others relay for 127.0.0.1 and for clients that have logged in: C{narrow} offers XCLIENT to 127.0.0.1 only, C{untold} to
no client, C{forwarding} offers XFORWARD to 127.0.0.1, and C{proxied} reads a PROXY header and offers XCLIENT to
127.0.0.1 and 127.0.0.8.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import accepts, freePort, ifKilled, newFolder, waitUntil
from mailgate.test.integration.dovecot import USERS, Dovecot, mailOwner
from mailgate.test.integration.programs import programPath

__all__ = ["MAIN", "MASTER", "UNKNOWN", "Postfix", "PostfixInstance"]

UNKNOWN = "nobody@example.com"
"""An address that does not exist."""

_SERVICES = ("trusting", "sasl", "login", "smtps", "narrow", "untold", "forwarding", "proxied")

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
alias_maps =
alias_database =
biff = no
"""
"""The main.cf that each Postfix of the tests has. C{folder} stands for its folder."""

_MAIN = """
myhostname = postfix.example.com
message_size_limit = 104857600
virtual_mailbox_limit = 0
virtual_mailbox_domains = example.com
virtual_mailbox_base = {mail}
virtual_mailbox_maps = texthash:{folder}/mailboxes
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = may
smtpd_tls_cert_file = {pair.certificate}
smtpd_tls_key_file = {pair.key}
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_sasl_authenticated_header = yes
smtpd_client_connection_count_limit = 0
"""

_SASL = " -o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"

_RELAYING = (
    " -o mynetworks=127.0.0.1/32"
    " -o smtpd_relay_restrictions=permit_mynetworks,permit_sasl_authenticated,reject_unauth_destination"
)

MASTER = """
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""
"""The services that each Postfix of the tests has in its master.cf."""

_MASTER = """
127.0.0.1:{trusting} inet n - n - - smtpd -o smtpd_authorized_xclient_hosts=127.0.0.0/8
127.0.0.1:{sasl} inet n - n - - smtpd{options}
127.0.0.1:{login} inet n - n - - smtpd{options} -o smtpd_sasl_mechanism_filter=login
127.0.0.1:{smtps} inet n - n - - smtpd{options} -o smtpd_tls_wrappermode=yes
127.0.0.1:{narrow} inet n - n - - smtpd{relaying} -o smtpd_authorized_xclient_hosts=127.0.0.1
127.0.0.1:{untold} inet n - n - - smtpd{relaying}
127.0.0.1:{forwarding} inet n - n - - smtpd{relaying} -o smtpd_authorized_xforward_hosts=127.0.0.1
127.0.0.1:{proxied} inet n - n - - smtpd{relaying} -o smtpd_upstream_proxy_protocol=haproxy
  -o smtpd_authorized_xclient_hosts=127.0.0.1,127.0.0.8
virtual unix - n n - - virtual
"""


class PostfixInstance:
    """
    A Postfix with a folder of its own, which has its configuration, queue and log.

    @ivar folder: the folder.
    """

    def __init__(self, name: str) -> None:
        """
        @param name: names the folder.
        """
        self.folder = newFolder(name)
        os.chmod(self.folder, 0o755)
        for each in ("queue", "data"):
            os.mkdir(os.path.join(self.folder, each))
        shutil.chown(os.path.join(self.folder, "data"), "postfix")

    def start(self, *ports: int) -> None:
        """
        Start it; its configuration has been written.

        @param ports: where it listens at 127.0.0.1.
        """
        ifKilled(*self._command("stop"))
        self._postfix("start")
        waitUntil(lambda: all(map(accepts, ports)), "Postfix listens")

    def write(self, name: str, content: str) -> None:
        """
        Write a file of its configuration.

        @param name: the file's name.
        @param content: what it contains.
        """
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(content)

    def _command(self, command: str) -> list[str]:
        program = programPath("postfix")
        assert program is not None
        return [program, "-c", self.folder, command]

    def _postfix(self, command: str) -> None:
        run = subprocess.run(
            self._command(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            text=True,
        )
        if run.returncode:
            raise AssertionError(f"postfix {command}: {run.stdout}\n{self.log()}")

    def log(self) -> str:
        """Its log."""
        try:
            with open(os.path.join(self.folder, "postfix.log"), errors="backslashreplace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """Stop it, and remove its queue."""
        self._postfix("stop")
        shutil.rmtree(self.folder, ignore_errors=True)


class Postfix(PostfixInstance):
    """A running Postfix that delivers to C{dovecot}; C{ports} are those of its services at 127.0.0.1."""

    def __init__(self, authority: Authority, dovecot: Dovecot) -> None:
        super().__init__("postfix")
        self.ports = {name: freePort() for name in _SERVICES}
        self._configure(authority, dovecot)
        self.start(*self.ports.values())

    def _configure(self, authority: Authority, dovecot: Dovecot) -> None:
        uid, gid = mailOwner()
        main = (MAIN + _MAIN).format(
            folder=self.folder, mail=dovecot.mail, sasl=dovecot.sasl, pair=authority.sign("postfix"), uid=uid, gid=gid
        )
        self.write("main.cf", main)
        self.write("master.cf", (MASTER + _MASTER).format(options=_SASL, relaying=_RELAYING, **self.ports))
        self.write(
            "mailboxes",
            "".join(f"{alias}{user}@example.com {user}/Maildir/\n" for user in USERS for alias in ("", "bjørn.")),
        )
