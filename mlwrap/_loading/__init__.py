"""How does a URI become checked files, and these an object?

May import: _journal, _mlflow, _process, _recording, _run, _savers, _shipped, _spool, config, errors.
Never opens a file whose hash is not the logged one, and never runs code that came with a model without
``trust=True``.
"""
