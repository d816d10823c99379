"""How is one kind of object written to files and read back?

May import: _journal, _mlflow, _shipped, _spool, errors.
Importing it never imports MLflow or a framework: a saver is called only if its framework is imported
already. It never pickles, and never runs code from a model without ``trust=True``.
"""
