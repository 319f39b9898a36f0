"""What assets are partitioned by: audiobooks within a language, languages, pairs of languages. Names only."""
