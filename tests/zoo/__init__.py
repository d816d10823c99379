"""Models as people publish them, from their training to MLflow's server."""
