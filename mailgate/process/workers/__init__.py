"""
A gateway with several processes: the master binds the sockets, each generation has a zygote, and the zygote forks the
workers, which serve clients. The processes exchange messages.
"""
