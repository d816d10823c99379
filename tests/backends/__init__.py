"""Keras without TensorFlow, each backend in an environment of its own (see the Makefile)."""
