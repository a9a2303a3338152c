"""Proof of the contract: through the function as deployed, against a real Firestore."""
