"""How is a run stored on disk, and which messages do a run and its sender exchange?

May import: errors.
Training and delivery share this package and ``_spool``. Never imports MLflow or a framework, and
never pickles.
"""
