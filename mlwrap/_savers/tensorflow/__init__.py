"""Savers for SavedModels, functions, checkpoints and Estimators of TensorFlow.

Never lets TensorFlow open a graph that was not checked.
"""
