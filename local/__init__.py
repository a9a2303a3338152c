"""Runs the system on one machine: finds and starts a Firestore, starts the function, shows what is stored."""
