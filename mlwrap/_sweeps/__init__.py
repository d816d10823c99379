"""How do many calls of one function become one sweep, on any joblib engine?

May import: _capture, _delivery, _journal, _mlflow, _process, _recording, _run, _spool, config, errors.
Never needs the sweep's own process while a trial runs.
"""
