"""
The keeper's questions to a process that serves clients, and their answers: one module for each subject. Importing this
package registers them (L{mailgate.keeper.view.ANSWERERS}).
"""

from mailgate.keeper.answers import kick, sessions
from mailgate.keeper.view import ANSWERERS

__all__: list[str] = []

for _module in (sessions, kick):
    ANSWERERS.update(_module.ANSWERS)
