"""Which requests does MLflow get, and what do its errors mean?

May import: _journal, _shipped, _spool, errors.
The only room that imports MLflow. Importing its modules, all but ``undocumented``, brings MLflow into the
process, so the rooms that record never import them at their top.
"""
