"""Which requests does MLflow get, and what do its errors mean?

May import: _journal, _shipped, _spool, errors.
The only room that imports MLflow. Importing it is how MLflow comes into the process, so the rooms that record
never import it at their top.
"""

import sys

IMPORTED_BY_MLWRAP = "mlflow" not in sys.modules
"""Whether MLflow is in this process because mlwrap needed it: the user's code makes no calls to it then."""
