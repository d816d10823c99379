"""What does the ``mlwrap`` command do?

May import: _decorator, _delivery, _journal, _loading, _mlflow, _process, _sender, _spool, config, errors.
Never prints a traceback for an error of mlwrap's own.
"""
