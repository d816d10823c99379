"""How are SavedModels, functions, checkpoints and Estimators written, and read back?

Never lets TensorFlow open a graph that was not checked.
"""
