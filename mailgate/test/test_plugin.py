"""
Tests for C{twisted/plugins/mailgate_plugin.py}: a plugin that cannot be imported is only logged, and the command then
is simply missing.
"""

from __future__ import annotations

import os
import sys

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
from twisted.python.reflect import namedModule
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import mailgate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))


class PluginTests(SynchronousTestCase):
    """C{twistd mailgate} exists."""

    def maker(self):
        """Find the plugin as twistd does."""
        (found,) = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "mailgate"]
        return found

    def test_found(self):
        """There is exactly one such plugin, and it provides the interfaces."""
        self.assertTrue(verifyObject(IServiceMaker, self.maker()))
        self.assertTrue(verifyObject(IPlugin, self.maker()))

    def test_module(self):
        """The module that it names can be imported, and has what a service maker needs."""
        module = namedModule(self.maker().module)
        self.assertEqual(module.__name__, "mailgate.tap")
        self.assertIs(self.maker().options, module.Options)
        self.assertIs(self.maker().makeService, module.makeService)

    def test_description(self):
        """The plugin has a description for C{twistd --help}."""
        self.assertIn("IMAP4, POP3 and SMTP", self.maker().description)

    def test_notNamedLikeThePackage(self):
        """The plugin's module does not have the name of the package, which it would hide."""
        self.assertNotIn("twisted.plugins.mailgate", sys.modules)

    def test_noInit(self):
        """In the checkout the plugin's folders have no __init__.py, which would hide Twisted's own."""
        for folder in ("twisted", os.path.join("twisted", "plugins")):
            path = os.path.join(ROOT, folder, "__init__.py")
            if os.path.exists(os.path.join(ROOT, "setup.cfg")):
                self.assertFalse(os.path.exists(path), path)
