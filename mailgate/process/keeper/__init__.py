"""
The keeper as a process of its own, beside the workers: its zygote, its supervision by the master, and its sockets. What
the keeper does is in L{mailgate.keeper}.
"""
