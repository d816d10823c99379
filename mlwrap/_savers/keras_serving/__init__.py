"""The serving form of a Keras model, so that MLflow predicts without the training's code.

Never adds files to a model that needs none.
"""
