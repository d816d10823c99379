"""How does the background process deliver many runs at once?

May import: _delivery, _journal, _mlflow, _spool, errors.
Never imports a framework or the rooms that record, and never waits for one store on account of another.
"""
