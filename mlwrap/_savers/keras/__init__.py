"""Savers for Keras models, layers, files and weights.

Never imports Keras before an object of Keras exists.
"""
