"""What an event costs this function, beside what a user would write instead, and beside the limit."""
