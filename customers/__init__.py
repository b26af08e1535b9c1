"""Who sends and who is billed: organisations, their staff and API keys, and their customers."""
