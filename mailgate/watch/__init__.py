"""
What one process observes of its clients: counters, histograms and the stories of connections that have ended.
"""
