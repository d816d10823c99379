"""How is one kind of object written to files, and read back?

May import: _journal, _mlflow, _shipped, _spool, errors.
Never imports MLflow or a framework when it is imported: a saver is asked about an object only if its
framework is loaded already. Never pickles, and never runs code from a model without ``trust=True``.
"""
