"""What assets are made with: settings, the lake, LibriVox, encoders, DuckDB, compute."""
