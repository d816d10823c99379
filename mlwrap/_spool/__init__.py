"""Where do run folders lie, whose are they, and which of them is open, delivered or lost?

May import: _journal, errors.
Never follows a link out of a run folder, and never touches another user's.
"""
