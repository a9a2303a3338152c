"""The fuzzer: hostile requests to the real process of the function."""
