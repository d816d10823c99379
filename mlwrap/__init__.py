"""Track TensorFlow and Keras training with MLflow: one decorator, nothing lost."""

__version__ = "0.1.0"
