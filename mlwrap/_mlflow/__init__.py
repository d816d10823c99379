"""Which requests does MLflow get, and what do its errors mean?

May import: _journal, _shipped, _spool, errors.
The only room that imports MLflow. Importing it is how MLflow comes into the process, so the rooms that record
never import it at their top.
"""
