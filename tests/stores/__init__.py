"""The stores that MLflow keeps runs and artifacts in, as real servers."""
