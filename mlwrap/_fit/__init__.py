"""What does a ``fit`` of Keras tell: settings, learning rates, the best epoch, a tuner's trial?

May import: errors.
Never imports Keras: it looks at the objects that ``fit`` brings.
"""
