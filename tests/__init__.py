"""Tests, in rooms as the package has them; then by way of failing."""
