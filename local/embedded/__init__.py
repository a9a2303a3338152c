"""An embedded Firestore on one SQLite file, for this machine only."""
