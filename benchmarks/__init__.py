"""Measures what an event costs this function, other implementations, and the fastest possible one."""
