"""How does user code start a run, log to it, end it, and wait for its delivery?

May import: _capture, _delivery, _journal, _mlflow, _process, _recording, _returned, _savers, _spool, config,
errors.
Never lets an internal error of mlwrap end the training.
"""
