"""What a corpus is worth, told in hours."""
