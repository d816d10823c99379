"""How does one run folder become one MLflow run, however often delivery is tried?

May import: _journal, _mlflow, _spool, config, errors.
Reads all that it needs in the run folder. Never imports a framework or the rooms that record, and never
writes what MLflow has already.
"""
