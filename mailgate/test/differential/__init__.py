"""
Plays recorded and random conversations through two trees of the project, and compares all that the client, the
authentication service and the backends receive, how their connections end, and what is logged.

C{python -m mailgate.test.differential --before FOLDER --after FOLDER} compares. L{mailgate.test.differential.script}
describes a conversation, L{mailgate.test.differential.player} plays it. Each tree plays in a process of its own, so
these modules import from the gateway only what an embedding program may use.
"""
