"""How do the arguments of a call become names and text, without secrets?

May import: errors.
Never imports a framework, and never lets a value that can't be read end the training.
"""
