"""
The keeper: adds up what all processes of a gateway observe, lists and ends sessions, and answers operators over HTTP.
"""
