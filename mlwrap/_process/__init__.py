"""What is this process: its place, its git state, its settings of MLflow, its credentials, its rank, its end?

May import: _capture, _journal, config, errors.
Never imports MLflow or a framework; it uses them only if they are already imported.
"""
