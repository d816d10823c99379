"""How is one run folder delivered as one MLflow run, even if delivery is repeated?

May import: _journal, _mlflow, _spool, config, errors.
Everything that delivery needs is in the run folder. Never imports a framework or a package that records, and
never writes what MLflow has already.
"""
