"""
What a process does around the gateways that serve in it: reload, drain, stop, upgrade, signals, the socket for
operators. Several processes: L{mailgate.process.workers}.
"""
