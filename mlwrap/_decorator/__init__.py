"""What does a decorated function look like, what does one call do, and how is it pickled?

May import: _capture, _process, _recording, _run, _savers, _sweeps, config, errors.
Never changes what the function takes, returns or raises.
"""
