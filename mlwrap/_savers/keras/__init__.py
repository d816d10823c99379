"""How is a Keras model written, and read back to be trained on?

Never imports Keras before an object of Keras is there.
"""
