-- Where does each row of the corpora of speech come from: recordings, places, and what the files are?
SELECT language_pair, score, source_url, source_start_ms, source_end_ms, source.sha256 AS source_sha256,
       target_url, target_start_ms, target_end_ms, target.sha256 AS target_sha256
FROM corpora
JOIN recordings AS source ON (source.language, source.audiobook, source.section)
    = (source_language, source_audiobook, source_section)
JOIN recordings AS target ON (target.language, target.audiobook, target.section)
    = (target_language, target_audiobook, target_section)
WHERE kind = 's2s'
ORDER BY language_pair, score DESC, source_segment, target_segment
