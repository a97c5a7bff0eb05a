"""
A path at which there is nothing, on whatever machine the tests run.
"""

from __future__ import annotations

import os

__all__ = ["NOWHERE"]

NOWHERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nowhere")
"""In the tests' own folder; nothing makes it."""
