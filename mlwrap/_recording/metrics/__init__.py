"""How do the numbers of one run get into its journal, in microseconds each?

Never waits for a device: a tensor that is not ready is written later.
"""
