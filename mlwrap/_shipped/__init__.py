"""Which code is copied into a logged model?

May import: nothing of mlwrap.
The loader never imports mlwrap: it runs where mlwrap is not installed.
"""
