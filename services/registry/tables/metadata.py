"""What all tables of the registry belong to."""

from sqlalchemy import MetaData

from services.grpckit import request_memory

METADATA = MetaData()

request_memory.table(METADATA)
