"""The soak: events with every sender fault, against a function and a Firestore with every fault."""
