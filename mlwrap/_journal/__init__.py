"""In which form does a run lie on the disk, and what do a run and its sender say to each other?

May import: errors.
The training half and the delivery half meet here and in ``_spool``. Never imports MLflow or a framework, and
never pickles.
"""
