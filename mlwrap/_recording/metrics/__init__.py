"""How are the metrics of one run written to its journal, in microseconds each?

Never waits for a device: a tensor that is not ready is written later.
"""
