"""Rows of any format as one stream: `open_rows` reads JSONL, JSON, CSV, Parquet, text, images and Hugging Face folders.

Memory stays bounded, nothing in a file is ever run, and a row that cannot be read is reported and passed over.
"""

from tuneforge.data.formats.opening import open_rows
from tuneforge.data.formats.parsed import DataFile, DataFormat, Limits, ParsedRow

__all__ = ["DataFile", "DataFormat", "Limits", "ParsedRow", "open_rows"]
