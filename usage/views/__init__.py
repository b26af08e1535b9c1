"""The HTTP edge of usage, one module a subject."""
