"""
The process around the gateway: reload, drain, stop, upgrade, signals and the command socket. For a gateway with
several processes see L{mailgate.process.workers}.
"""
