"""What a Keras ``fit`` leaves behind: losses, epochs, and the types and shapes of its inputs.

Never reads a dataset.
"""
