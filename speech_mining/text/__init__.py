"""Text: from shards as they are found to sentences, each once."""
