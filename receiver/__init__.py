"""The parts of the function; `main.py` shows in which order a request uses them."""
