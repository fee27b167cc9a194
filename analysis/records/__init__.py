"""records.parquet to arrays: one element per request, one per token, and which of them are measured."""
