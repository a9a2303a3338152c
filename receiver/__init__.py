"""What `main.py` is made of: settings, signature, event, value, store, log and the errors between them."""
