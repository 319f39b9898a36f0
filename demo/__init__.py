"""The miniature library: the world it tells of, the script that makes it, and what that script made."""
