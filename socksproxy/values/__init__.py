"""Units, text that has a value, and the small settings that have no other home."""
