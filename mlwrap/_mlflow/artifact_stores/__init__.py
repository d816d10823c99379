"""Which requests does an artifact store get directly, and what do its errors mean?

MLflow's own client uploads small files; a large one goes to S3 in parts, which MLflow's client can't resume.
"""
