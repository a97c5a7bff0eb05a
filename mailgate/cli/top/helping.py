"""
The keys of C{mailgate top}, as its page of help.
"""

from __future__ import annotations

__all__ = ["HELP"]

HELP = """\
b  backends                       a  authentication services
s  sessions                       f  failed logins
w  workers                        v  servers and certificates
l  logins that are stuck          x  blocks and holds
!  all alarms

up, down, page up, page down, home, end   move
enter        show everything about the selected row
<  >         sort by the column to the left or to the right
i            invert the order
/            show only rows that contain the words; escape shows all
             sessions: a part of the user name, or NAME=VALUE with the
             filters of mailgate sessions, such as backend=10.0.0.1:143
space        pause, and go on
e            explain the last logins of the selected user
k            end the selected session
K            end all sessions of the selected user
d            drain the selected backend: it gets no new sessions
r            resume the selected backend
u            end the selected block
?            this help
q            quit

k, K, d, r and u first find out what they would affect, and then ask. They
need the level operate (k, K, u) or admin (d, r).

LOGINS are accepted logins a second, CONN95 and LOGIN95 the times within
which 95 % of the connections and logins at the backend were done. LAG is
how late a process is.""".splitlines()
"""Its lines."""
