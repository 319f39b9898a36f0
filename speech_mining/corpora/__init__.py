"""What is left after selection, and how it is written down."""
