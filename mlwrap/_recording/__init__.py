"""How is one run written down while it happens: parameters, metrics, models, artifacts?

May import: _capture, _journal, _process, _savers, _spool, config, errors.
Never imports MLflow, waits for the network or blocks on a device.
"""
