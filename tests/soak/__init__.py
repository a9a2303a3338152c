"""The soak: a Data Connector with every fault against a function and a Firestore with every fault."""
