"""Which files make a logged model in MLflow's format?

Never imports a framework.
"""
