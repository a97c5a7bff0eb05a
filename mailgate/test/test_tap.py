"""Tests for L{mailgate.tap}. L{mailgate.test.process.test_surroundings} tests a separate twistd process."""

from __future__ import annotations

import gc
import os
import socket

from twisted.application.service import Application, IService, IServiceCollection, MultiService
from twisted.logger import ILogObserver, Logger, LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.process import twistd
from mailgate.process.interfaces import IGenerations
from mailgate.process.rights import tuneCollector
from mailgate.system.exitstatus import BAD_CONFIGURATION
from mailgate.tap import Options, makeService
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tapcase import GOOD, LAST, TapCase


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_config(self):
        """C{--config} and C{-c} name the configuration."""
        for arguments in (("--config", "/etc/x.ini"), ("--config=/etc/x.ini",), ("-c", "/etc/x.ini")):
            self.assertEqual(self.parse(*arguments)["config"], "/etc/x.ini")

    def test_absolute(self):
        """A relative path becomes absolute before the working directory can change."""
        self.assertEqual(self.parse("--config", "x.ini")["config"], os.path.join(os.getcwd(), "x.ini"))

    def test_missing(self):
        """Without a configuration twistd prints an error and the usage."""
        error = self.assertRaises(UsageError, self.parse)
        self.assertEqual(str(error), "--config FILE is required")

    def test_unknown(self):
        """Other arguments are refused."""
        self.assertRaises(UsageError, self.parse, "--config", "x", "--port", "143")

    def test_withoutOption(self):
        """Words without an option are refused by name: who forgets --config sees what to write."""
        for words in (("gateway.ini",), ("--config", "x", "gateway.ini")):
            error = self.assertRaises(UsageError, self.parse, *words)
            self.assertEqual(
                str(error), "gateway.ini stands without an option; name the configuration by --config FILE"
            )

    def test_help(self):
        """The help has the option, and the command that checks a configuration."""
        text = str(Options())
        self.assertIn("--config=", text)
        self.assertIn("mailgate check", text)


class MakeServiceTests(TapCase):
    """Tests for L{makeService}."""

    def test_service(self):
        """The service contains the gateway and its later generations."""
        service = self.make()
        self.assertTrue(IService.providedBy(service))
        (generations,) = IServiceCollection(service)
        self.assertTrue(verifyObject(IGenerations, generations))
        self.assertEqual(generations.gateway.settings.servers[0].name, "imap")

    def test_noSocket(self):
        """No socket is opened, because twistd has not forked yet."""
        (generations,) = self.make()
        self.assertIsNone(generations.gateway.listeners[0].port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))

    def test_openFiles(self):
        """The limit of open files is raised after the configuration was found good."""
        self.make()
        self.assertEqual(self.raised, [True])

    def test_openFilesGiven(self):
        """worker_rlimit_nofile sets the limit exactly."""
        self.make(GOOD.replace("[mailgate]", "[mailgate]\nworker_rlimit_nofile = 300"))
        self.assertEqual((self.raised, self.limited), ([], [300]))

    def test_openFilesRefused(self):
        """If the system refuses the limit, that is logged, and the gateway starts."""

        def refuse(limit):
            raise PermissionError("not allowed to raise maximum limit")

        self.patch(twistd, "limitOpenFiles", refuse)
        with capturedLogs() as events:
            self.make(GOOD.replace("[mailgate]", "[mailgate]\nworker_rlimit_nofile = 300"))
        (event,) = [event for event in events if event["log_namespace"] == "mailgate"]
        told = ":3: [mailgate] worker_rlimit_nofile = 300: cannot be set: not allowed to raise maximum limit"
        self.assertTrue(formatEvent(event).endswith(told), formatEvent(event))
        self.assertIs(event["log_level"], LogLevel.error)

    def test_serversLog(self):
        """A server's own log is opened, too, and an error is reported in the same way."""
        self.make(GOOD + f"error_log = {self.log}.imap\n")
        self.assertTrue(os.path.exists(f"{self.log}.imap"))
        path = os.path.join(self.folder, "gateway.ini")
        self.assertEqual(
            self.assertExits(BAD_CONFIGURATION, self.make, GOOD + f"error_log = {NOWHERE}/imap.log\n"),
            [
                f"{path}:{LAST}: [server imap] error_log = {NOWHERE}/imap.log:"
                " cannot be opened: No such file or directory"
            ],
        )

    def test_bad(self):
        """A bad configuration ends the process with status 78 and a line for each error on standard error."""
        lines = self.assertExits(BAD_CONFIGURATION, self.make, GOOD + "timeuot = 5\nmax_errors = x\n")
        path = os.path.join(self.folder, "gateway.ini")
        self.assertEqual(
            lines,
            [
                f"{path}:{LAST}: [server imap] timeuot: is an unknown option; did you mean timeout?",
                f"{path}:{LAST + 1}: [server imap] max_errors = x: must be a whole number, such as 5",
            ],
        )
        self.assertEqual(BAD_CONFIGURATION, os.EX_CONFIG)
        self.assertEqual(self.raised, [])

    def test_missing(self):
        """So does a missing configuration."""
        options = Options()
        options.parseOptions(["--config", f"{NOWHERE}/gateway.ini"])
        lines = self.assertExits(BAD_CONFIGURATION, makeService, options)
        self.assertEqual(lines, [f"{NOWHERE}/gateway.ini: cannot be read: No such file or directory"])

    def test_unopenableLog(self):
        """So does a log file that cannot be written, with a line like the others."""
        self.log = f"{NOWHERE}/mailgate.log"
        path = os.path.join(self.folder, "gateway.ini")
        self.assertEqual(
            self.assertExits(BAD_CONFIGURATION, self.make),
            [f"{path}:3: [mailgate] error_log = {NOWHERE}/mailgate.log: cannot be opened: No such file or directory"],
        )


class LogTests(TapCase):
    """error_log replaces twistd's own log."""

    def test_twistd(self):
        """twistd finds the observer of error_log in the application."""
        application = Application("mailgate")
        self.make().setServiceParent(application)
        observer = application.getComponent(ILogObserver)
        Logger("test", observer=observer).info("told")
        self.assertIn(f"[info] {os.getpid()}: told\n", self.logged())

    def test_twistdOnce(self):
        """The observer is not added a second time: each event is one line."""
        application = Application("mailgate")
        self.make().setServiceParent(application)
        Logger("twistd", observer=application.getComponent(ILogObserver)).info("starting up")
        before = list(globalLogPublisher._observers)
        service = IService(application)
        service.startService()
        self.assertEqual(list(globalLogPublisher._observers), before)
        return service.stopService()

    async def test_elsewhere(self):
        """
        Under C{twist}, which does not look for the observer in the application, or without an application, the service
        adds the observer, and removes it when it stops.
        """
        for parent in (Application("mailgate"), None):
            await self.assertAddsItself(parent)

    async def assertAddsItself(self, parent):
        service = self.make()
        if parent is not None:
            service.setServiceParent(parent)
        service.startService()
        Logger("test").info("while it runs")
        await service.stopService()
        Logger("test").info("afterwards")
        self.assertIn("while it runs", self.logged())
        self.assertNotIn("afterwards", self.logged())
        os.unlink(self.log)

    async def test_withinAnother(self):
        """The parent may be a service that is no application."""
        parent = MultiService()
        service = self.make()
        service.setServiceParent(parent)
        self.assertIs(service.parent, parent)
        parent.startService()
        await parent.stopService()


class TuneCollectorTests(SynchronousTestCase):
    """Tests for L{tuneCollector}."""

    def test_tuned(self):
        """The collector skips existing objects, and looks at new ones rarely; garbage is still found."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        tuneCollector()
        self.assertGreater(gc.get_freeze_count(), 10000)
        self.assertGreaterEqual(gc.get_threshold()[0], 10000)
        self.assertTrue(gc.isenabled())
