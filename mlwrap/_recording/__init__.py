"""How are the parameters, metrics, models and artifacts of an open run recorded?

May import: _capture, _journal, _process, _savers, _spool, config, errors.
Never imports MLflow, waits for the network or blocks on a device.
"""
