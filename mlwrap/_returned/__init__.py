"""What is in a value that a training function returned?

May import: _journal, _savers, errors.
Never changes the value.
"""
