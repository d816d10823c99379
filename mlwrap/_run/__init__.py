"""What is a run to its user: entered, spoken to, ended, waited for?

May import: _capture, _delivery, _journal, _process, _recording, _returned, _savers, _spool, config, errors.
Never lets an error of mlwrap's own end the training.
"""
