"""
A path that does not exist on any machine.
"""

from __future__ import annotations

import os

__all__ = ["NOWHERE"]

NOWHERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nowhere")
"""In the directory of the tests; nothing creates it."""
