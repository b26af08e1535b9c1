"""Quantities out: metrics, the aggregates that carry them, and how both stay exact."""
