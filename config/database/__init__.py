"""Django's PostgreSQL, with one habit of our own: see base.py. The name is what DATABASES asks for as ENGINE."""
