"""What does a fit leave behind: losses, epochs, the inputs it was fed?

Never reads a dataset.
"""
