"""
Tests for L{mailgate.net.sockets}, over the loopback, as a fake has no queue of connections.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.directives import ListenAddress
from mailgate.net.sockets import ListenError, ListeningSockets, ownSockets
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.support.descriptors import settleDescriptors


def settingsOf(*listen: str) -> GatewaySettings:
    """Return a configuration with one server that listens at these addresses."""
    lines = "".join(f"    {each}\n" for each in listen)
    return parse(f"[server imap]\nprotocol = imap\nproxy_pass = 127.0.0.1:1\nlisten =\n{lines}")


class OwnSocketsTests(SynchronousTestCase):
    """Tests for L{ownSockets}."""

    def test_each(self) -> None:
        """Each address has a socket of its own, also with another host or port."""
        addresses = [ListenAddress("127.0.0.1", 143), ListenAddress("127.0.0.2", 143), ListenAddress("0.0.0.0", 110)]
        self.assertEqual(ownSockets(addresses), {address: [] for address in addresses})

    def test_wildcard(self) -> None:
        """A wildcard covers the specific addresses of its port and family, in any order."""
        specific, wildcard = ListenAddress("127.0.0.1", 143), ListenAddress("0.0.0.0", 143)
        other, path = ListenAddress("::1", 143), ListenAddress("unix:/x", 0)
        for addresses in ([specific, wildcard, other, path], [path, other, wildcard, specific]):
            self.assertEqual(ownSockets(addresses), {wildcard: [specific], other: [], path: []})


class ListeningSocketsTests(SynchronousTestCase):
    """Tests for L{ListeningSockets}."""

    def setUp(self) -> None:
        self.port = freePort()
        self.folder = newFolder("sockets")
        self.path = os.path.join(self.folder, "imap.sock")
        self.addCleanup(os.rmdir, self.folder)

    def opened(self, *listen: str, before: ListeningSockets | None = None) -> ListeningSockets:
        sockets = (before or ListeningSockets()).opened(settingsOf(*listen).servers)
        self.addCleanup(sockets.close)
        return sockets

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def test_opened(self) -> None:
        """Sockets are bound, listen, and do not block. They are found by their addresses only."""
        sockets = self.opened(f"127.0.0.1:{self.port}", f"unix:{self.path}")
        found = sockets.find(ListenAddress("127.0.0.1", self.port))
        assert found is not None
        self.assertEqual(found.getsockname(), ("127.0.0.1", self.port))
        self.assertFalse(found.getblocking())
        self.assertTrue(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        self.assertIsNone(sockets.find(ListenAddress("127.0.0.2", self.port)))
        self.assertEqual(set(sockets.descriptors()), {f"127.0.0.1:{self.port}", f"unix:{self.path}"})

    def test_kept(self) -> None:
        """An open socket stays open, and connections stay in its queue."""
        before = self.opened(f"127.0.0.1:{self.port}")
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            after = self.opened(f"127.0.0.1:{self.port}", before=before)
            before.close(but=after)
            address = ListenAddress("127.0.0.1", self.port)
            self.assertIsNotNone(after.find(address))
            accepted, peer = after.find(address).accept()  # type: ignore[union-attr]
            self.assertEqual(peer, client.getsockname())
            accepted.close()

    def test_closed(self) -> None:
        """A socket that is no longer used is closed, and the file of a unix socket is removed."""
        before = self.opened(f"127.0.0.1:{self.port}", f"unix:{self.path}")
        other = freePort()
        after = self.opened(f"127.0.0.1:{other}", before=before)
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path).st_mode))
        before.close(but=after)
        self.assertFalse(os.path.exists(self.path))
        with socket.socket() as probe:
            self.assertEqual(probe.connect_ex(("127.0.0.1", self.port)), errno.ECONNREFUSED)
            self.assertEqual(probe.connect_ex(("127.0.0.1", other)), 0)
        self.assertEqual(before.descriptors(), {})

    def test_fileIsGone(self) -> None:
        """It does not matter if the file of a unix socket is gone."""
        sockets = self.opened(f"unix:{self.path}")
        os.unlink(self.path)
        sockets.close()
        self.assertEqual(sockets.descriptors(), {})

    def test_refused(self) -> None:
        """If one address cannot be bound, the other new sockets are closed, and the old ones do not change."""
        before = self.opened(f"127.0.0.1:{self.port} backlog=5")
        free = freePort()
        # Sockets of other tests must not be garbage-collected during this one.
        gc.collect()
        settleDescriptors()
        count = self.descriptors()
        with socket.create_server(("127.0.0.1", freePort())) as taken:
            listen = (f"127.0.0.1:{self.port}", f"127.0.0.1:{free}", f"127.0.0.1:{taken.getsockname()[1]}")
            error = self.assertRaises(ListenError, before.opened, settingsOf(*listen).servers)
        self.assertIn("[server imap] listen = 127.0.0.1:", str(error))
        self.assertIn("cannot be bound: Address already in use", str(error))
        self.assertEqual(self.descriptors(), count)
        self.assertEqual(set(before.descriptors()), {f"127.0.0.1:{self.port}"})

    def test_options(self) -> None:
        """An open socket gets the options of the new configuration."""
        before = self.opened(f"127.0.0.1:{self.port}")
        after = self.opened(f"127.0.0.1:{self.port} so_keepalive=on", before=before)
        kept = after.find(ListenAddress("127.0.0.1", self.port))
        assert kept is not None
        self.assertIs(kept, before.find(ListenAddress("127.0.0.1", self.port)))
        self.assertEqual(kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)

    def test_fixedOptions(self) -> None:
        """An option that cannot change is refused, and the message asks for a restart."""
        if not socket.has_ipv6:
            return
        before = self.opened(f"[::1]:{self.port}")
        error = self.assertRaises(ListenError, before.opened, settingsOf(f"[::1]:{self.port} ipv6only=off").servers)
        self.assertIn("ipv6only cannot change while the socket is open; restart the gateway", str(error))

    def test_adopted(self) -> None:
        """Descriptors from another process can be used. Child processes do not inherit them."""
        first = self.opened(f"127.0.0.1:{self.port}")
        handed = {name: os.dup(descriptor) for name, descriptor in first.descriptors().items()}
        for descriptor in handed.values():
            os.set_inheritable(descriptor, True)
            os.set_blocking(descriptor, True)
        second = ListeningSockets.adopted(handed)
        self.addCleanup(second.close)
        first.close()
        third = self.opened(f"127.0.0.1:{self.port}", before=second)
        self.assertEqual(third.descriptors(), handed)
        for descriptor in handed.values():
            self.assertFalse(os.get_inheritable(descriptor))
            self.assertFalse(os.get_blocking(descriptor))

    def test_disowned(self) -> None:
        """disown leaves the files of unix sockets to the other processes."""
        first = self.opened(f"unix:{self.path}")
        second = ListeningSockets.adopted({name: os.dup(fd) for name, fd in first.descriptors().items()})
        second.disown()
        self.assertEqual(second.descriptors(), {})
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)


class PassedSocketsTests(SynchronousTestCase):
    """L{ListeningSockets} from systemd."""

    def passed(self, *names: str) -> ListeningSockets:
        """Return sockets with these names, bound as systemd does."""
        descriptors = {}
        for name in names:
            with socket.create_server(("127.0.0.1", 0)) as bound:
                descriptors[name] = os.dup(bound.fileno())
        sockets = ListeningSockets.adopted(descriptors)
        self.addCleanup(sockets.disown)
        return sockets

    def test_found(self) -> None:
        """All sockets with a name are found, in their order, and no others."""
        sockets = self.passed("systemd:imap", "systemd:imap:1", "systemd:imaps")
        settings = settingsOf("systemd:imap")
        (address,) = settings.servers[0].listen
        opened = sockets.opened(settings.servers)
        descriptors = sockets.descriptors()
        numbers = [each.fileno() for each in opened.findAll(address)]
        self.assertEqual(numbers, [descriptors["systemd:imap"], descriptors["systemd:imap:1"]])
        self.assertEqual(opened.find(address), opened.findAll(address)[0])

    def test_stay(self) -> None:
        """They stay open, whatever the configuration is: systemd passes them only once."""
        sockets = self.passed("systemd:imap", "systemd:imaps")
        port = freePort()
        opened = sockets.opened(settingsOf(f"127.0.0.1:{port}").servers)
        before = sockets.descriptors()
        sockets.close(but=opened)
        again = opened.opened(settingsOf("systemd:imaps").servers)
        opened.close(but=again)
        self.assertEqual(again.descriptors(), before)

    def test_missing(self) -> None:
        """A name that systemd did not pass is refused, and the message lists those that it passed."""
        for sockets, names in (
            (ListeningSockets(), "none"),
            (self.passed("systemd:pop3", "systemd:imaps", "systemd:imaps:1"), "pop3, imaps"),
        ):
            error = self.assertRaises(ListenError, sockets.opened, settingsOf("systemd:imap").servers)
            reason = f"systemd passed no socket with this name; it passed {names}"
            self.assertEqual(str(error), f"gateway.ini:5: [server imap] listen = systemd:imap: {reason}")

    def test_noListener(self) -> None:
        """A socket that does not listen is refused."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sockets = ListeningSockets({"systemd:imap": socket.socket(socket.AF_INET, kind)})
            self.addCleanup(sockets.disown)
            error = self.assertRaises(ListenError, sockets.opened, settingsOf("systemd:imap").servers)
            self.assertIn("a socket that is not a listening stream socket", str(error))

    def test_file(self) -> None:
        """The file of a unix socket from systemd stays."""
        folder = newFolder("sockets")
        path = os.path.join(folder, "imap.sock")
        self.addCleanup(os.rmdir, folder)
        self.addCleanup(os.unlink, path)
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(path)
        bound.listen()
        ListeningSockets({"systemd:imap": bound}).close()
        self.assertTrue(os.path.exists(path))

    def test_keepsFiles(self) -> None:
        """With keepsFiles the file of a unix socket stays, until the flag is cleared."""
        folder = newFolder("sockets")
        self.addCleanup(os.rmdir, folder)
        path = os.path.join(folder, "imap.sock")
        for keepsFiles in (True, False):
            sockets = ListeningSockets({}, keepsFiles).opened(settingsOf(f"unix:{path}").servers)
            sockets.close()
            self.assertEqual(os.path.exists(path), keepsFiles)
