"""A page on this machine that shows the sensors, their history and the quarantine, from a Firestore; read-only."""
