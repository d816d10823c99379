"""How do the models and artifacts of a run get into MLflow?

Each is delivered on its own: what MLflow refuses, or what is damaged, holds nothing else up.
"""
