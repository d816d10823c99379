"""Where does this process run, which of several workers is it, and how does it end?

May import: _capture, _journal, config, errors.
Never imports MLflow or a framework; it uses them only if they are already imported.
"""
