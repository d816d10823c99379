"""Hostile model files, built by scripts: each does harm where it is loaded without being looked at."""
