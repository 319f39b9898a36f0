"""Words without a dictionary: word-sized pieces of speech, and vectors of spoken and of written words.

What belongs here is what makes the two spaces that `speech_mining.align` brings together. Chung, Weng, Tong & Glass,
"Unsupervised Cross-Modal Alignment of Speech and Text Embedding Spaces", 2018.
"""
