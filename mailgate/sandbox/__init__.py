"""Embedded mail servers over mailboxes in memory: the backend of the demo, and of tests."""
