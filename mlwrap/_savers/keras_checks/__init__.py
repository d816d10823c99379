"""Checks whether a Keras file can be loaded safely in this process.

Never imports a module that the file's own configuration does not need.
"""
