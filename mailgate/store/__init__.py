"""
The memory that several gateways share: Valkey or Redis. Only keepers talk to it.
"""
