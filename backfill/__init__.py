"""`python -m backfill`: reads history from DT's REST API and creates the documents that are missing in Firestore."""
