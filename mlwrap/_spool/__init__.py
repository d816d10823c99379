"""Where are the run folders, who owns them, and which of them are open, delivered or lost?

May import: _journal, errors.
Never follows a link out of a run folder, and never touches another user's.
"""
