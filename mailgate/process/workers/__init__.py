"""
Several processes: the master, which binds the sockets, the zygote of each generation, and its forks, the workers; and
the messages between them.
"""
