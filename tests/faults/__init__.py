"""Ways to fail, and what must happen."""
