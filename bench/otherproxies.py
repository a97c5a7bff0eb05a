# -*- test-case-name: bench.test.test_proxies -*-
"""
Other proxies: nginx, HAProxy, Dovecot's proxy and Perdition, as in Debian.
"""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
from collections.abc import Sequence

from bench.proxies import SEARCH, Proxy, Running, Site, output, search, writeFile

__all__ = ["Dovecot", "HAProxy", "Nginx", "Perdition"]


class _Installed(Proxy):
    """A proxy that is found by the name of its command."""

    command = ""

    def __init__(self) -> None:
        self.path = shutil.which(self.command, path=SEARCH) or ""

    def find(self) -> str | None:
        return None if self.path else f"no {self.command} is installed here"


_NGINX = """\
{modules}daemon off;
user {user};
worker_processes {workers};
worker_rlimit_nofile {openFiles};
error_log /dev/null;
pid {folder}/nginx.pid;
events {{ worker_connections {connections}; {events}}}
mail {{
    auth_http 127.0.0.1:{authPort}/auth;
    imap_capabilities IMAP4rev1 SASL-IR ID LITERAL+;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:10m;
    server {{ listen 127.0.0.1:{plain} backlog=4096; protocol imap; }}
    server {{ listen 127.0.0.1:{tls} ssl backlog=4096; protocol imap; }}
}}
"""


_SHARED = "accept_mutex on; accept_mutex_delay 5ms; "
"""
Without this one worker gets nearly all connections. With it a worker that has more than 7/8 of its connections leaves
new ones to the others.
"""


class Nginx(Proxy):
    """
    nginx's mail module.

    @param path: the program, if not the installed one.
    @param workers: the number of workers.
    """

    name = "nginx"

    def __init__(self, path: str | None, workers: int = 1) -> None:
        self._path = path or shutil.which("nginx", path=SEARCH)
        self._workers = workers

    def scaled(self, workers: int, site: Site) -> Proxy:
        return Nginx(self._path, workers)

    def find(self) -> str | None:
        return None if self._path and os.path.exists(self._path) else "no nginx is installed here"

    def _built(self) -> str:
        return output([self._path or "", "-V"])

    def version(self) -> str:
        built = self._built()
        openSSL = re.search(r"running with (OpenSSL \S+)", built) or re.search(r"built with (OpenSSL \S+)", built)
        number = search(r"nginx/(\S+)", built)
        return f"nginx {number}, {openSSL[1] if openSSL else 'OpenSSL unknown'}"

    def _modules(self) -> str:
        # Debian builds the module separately; if it is built in, there is nothing to load.
        built = self._built()
        if "--with-mail=dynamic" not in built:
            return ""
        where = search(r"--modules-path=(\S+)", built)
        return f"load_module {where}/ngx_mail_module.so;\n"

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        text = _NGINX.format(
            modules=self._modules(),
            user=getpass.getuser(),
            openFiles=site.openFiles,
            workers=self._workers,
            # The second number makes 7/8 of the connections nearly what the descriptors permit.
            connections=site.openFiles if self._workers == 1 else site.openFiles * 13 // 12,
            events=_SHARED if self._workers > 1 else "",
            folder=folder,
            authPort=site.authPort,
            certificate=site.certificate,
            key=site.key,
            plain=plain,
            tls=tls,
        )
        return [[self._path or "", "-e", "stderr", "-p", folder, "-c", writeFile(folder, "nginx.conf", text)]]


_HAPROXY = """\
global
    nbthread {threads}
    maxconn {sessions}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend plain
    bind 127.0.0.1:{plain} backlog 4096
    default_backend imap
frontend tls
    bind 127.0.0.1:{tls} ssl crt {both} backlog 4096
    default_backend imap
backend imap
    balance roundrobin
{servers}"""


class HAProxy(_Installed):
    """
    HAProxy in TCP mode.

    @param threads: the threads of each process.
    @param processes: the processes, which share the ports.
    """

    name = "HAProxy"
    command = "haproxy"
    asksAuth = False
    note = (
        "relays TCP only: the client logs in at the backend itself, and no authentication service is asked; two "
        "workers are two threads, or two processes that share the port where descriptors are the limit"
    )

    def __init__(self, threads: int = 1, processes: int = 1) -> None:
        super().__init__()
        self._threads = threads
        self._processes = processes

    def scaled(self, workers: int, site: Site) -> Proxy:
        # The threads of a process share its descriptors.
        return HAProxy(processes=workers) if len(site.backendPorts) > 1 else HAProxy(threads=workers)

    def version(self) -> str:
        said = output([self.path, "-vv"])
        number, library = (
            search(r"version (\d[\d.]*)", said),
            search(r"Running on OpenSSL version : (OpenSSL \S+)", said),
        )
        return f"HAProxy {number}, {library}"

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        text = _HAPROXY.format(
            sessions=(site.openFiles - 200) // 2,
            threads=self._threads,
            plain=plain,
            tls=tls,
            both=site.both,
            servers="".join(f"    server s{port} 127.0.0.1:{port}\n" for port in site.backendPorts),
        )
        return [[self.path, "-db", "-f", writeFile(folder, "haproxy.cfg", text)]] * self._processes

    def reload(self, running: Running, commands: Sequence[Sequence[str]]) -> None:
        # The new processes tell the old ones to end when their sessions have ended.
        old = [str(pid) for pid in running.pids]
        started = [running.children.start(self.name, [*command, "-sf", *old], self.folder) for command in commands]
        running.processes += started


_DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/null
protocols = imap
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain
default_vsz_limit = 0
default_client_limit = {sessions}
{users}
passdb {{
    driver = static
    args = proxy=y host=127.0.0.1 port={backend} nopassword=y
}}
service imap-login {{
    inet_listener imap {{
        address = 127.0.0.1
        port = {plain}
    }}
    inet_listener imaps {{
        address = 127.0.0.1
        port = {tls}
        ssl = yes
    }}
    service_count = 0
    process_min_avail = 1
    process_limit = 1
    client_limit = {sessions}
    {login}
}}
"""

_DOVECOT_USERS = """\
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
"""


def _group() -> str:
    return grp.getgrgid(os.getegid()).gr_name


class Dovecot(_Installed):
    """Dovecot's proxy, with one login process that serves all clients (its high-performance mode)."""

    name = "Dovecot"
    command = "dovecot"
    asksAuth = False
    note = "its own auth process (a static passdb) is asked; it logs every login, though to nowhere"

    def find(self) -> str | None:
        missing = super().find()
        if missing is None and not output([self.path, "--version"]).startswith("2.3"):
            return "the configuration of this Dovecot is not known here: 2.3 is"
        return missing

    def version(self) -> str:
        return f"Dovecot {output([self.path, '--version']).split()[0]}"

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        # Dovecot refuses to serve logins as root, and cannot become another user when it is not.
        unprivileged = os.geteuid() != 0
        text = _DOVECOT.format(
            folder=folder,
            certificate=site.certificate,
            key=site.key,
            sessions=(site.openFiles - 200) // 2,
            backend=site.backendPort,
            plain=plain,
            tls=tls,
            users=_DOVECOT_USERS.format(user=getpass.getuser(), group=_group()) if unprivileged else "",
            login="chroot =" if unprivileged else "",
        )
        return [[self.path, "-F", "-c", writeFile(folder, "dovecot.conf", text)]]


class Perdition(_Installed):
    """Perdition: a process for every connection, and one more that listens, for each port."""

    name = "Perdition"
    command = "perdition.imap4"
    asksAuth = False
    memoryField = "Pss"
    mostSessions = 1000
    note = (
        "a process for every connection; asks nobody, all accounts are at the backend; memory: Pss, as processes share"
    )

    def version(self) -> str:
        number = search(r"version (\d[\d.]*)", output([self.path, "--help"]))
        return f"Perdition {number}"

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        common = [
            self.path,
            "--no_daemon",
            "--quiet",
            "--log_facility",
            "/dev/null",
            "--no_lookup",
            "--map_library",
            "",
        ]
        common += ["--bind_address", "127.0.0.1", "--connection_limit", "0", "--pid_file", "", "--protocol", "IMAP4"]
        common += [
            "--username",
            getpass.getuser(),
            "--group",
            grp.getgrgid(os.getegid()).gr_name,
            "--config_file",
            "/dev/null",
        ]
        common += ["--outgoing_server", "127.0.0.1", "--outgoing_port", str(site.backendPort)]
        secure = ["--ssl_mode", "ssl_listen", "--ssl_cert_file", site.certificate, "--ssl_key_file", site.key]
        secure += ["--ssl_ca_accept_self_signed", "--ssl_no_client_cert_verify", "--ssl_listen_max_proto_version", ""]
        return [[*common, "--listen_port", str(plain)], [*common, *secure, "--listen_port", str(tls)]]
