"""mlwrap with each MLflow that it supports, and with servers of other versions: ``make test-mlflow``."""
