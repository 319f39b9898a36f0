"""Mining of speech-to-speech and speech-to-text translation data.

A library that needs no orchestrator: recordings become segments, segments become embeddings, embeddings become
neighbours, neighbours become scored pairs, pairs become corpora. What belongs here is *how* each of those steps is
done; *what* is made of them and when is the business of `s2s_assets`.

Importing this package is light: torch, faiss, av and onnxruntime are loaded by the functions that need them.
"""

__version__ = "0.1.0"
