"""What the scheduler keeps on disk: plain functions on a transaction, one file a noun. Knows no grpc."""
