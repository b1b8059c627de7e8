"""Content from elsewhere: https, S3, the hub, installed packages, fetched on behalf of a caller (docs/adr/0010)."""
