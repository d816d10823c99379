"""What does the ``mlwrap`` command do?

May import: _decorator, _delivery, _loading, _mlflow, _process, _sender, config, errors.
Never prints a traceback for an error of mlwrap's own.
"""
