"""Is it safe and possible to load this Keras file here?

Never imports a module that the file's own configuration does not need.
"""
