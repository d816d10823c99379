"""What does a Keras model need so that MLflow predicts without the training's code?

Never adds a byte to a model that needs nothing.
"""
