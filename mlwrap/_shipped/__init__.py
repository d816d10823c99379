"""Which code travels with a logged model?

May import: nothing of mlwrap.
The loader never imports mlwrap: it runs where mlwrap is not installed.
"""
