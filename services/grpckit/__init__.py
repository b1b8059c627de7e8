"""Plumbing that knows no service: server, errors, interceptors, authorisation, database, pages."""
