"""The HTTP edge of metrics: definitions, and the quantities that they give."""
