"""What `python -m backfill` is made of: history from DT's REST API, and the writer that makes the gaps whole."""
