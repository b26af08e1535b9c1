"""Usage in: definitions of streams, ingestion, raw records and their corrections."""
