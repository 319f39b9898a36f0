"""Students of a teacher: how encoders are made."""
