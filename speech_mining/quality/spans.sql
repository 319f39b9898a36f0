-- Both sides of the corpora as spans of speech. A side of text has no place in a recording, and no row.
SELECT kind, language_pair, 'source' AS side, source_language AS language, source_audiobook AS audiobook,
       source_section AS section, source_segment AS segment, source_readers AS readers,
       source_start_sample AS start_sample, source_end_sample AS end_sample, score
FROM corpora
WHERE source_segment IS NOT NULL
UNION ALL
SELECT kind, language_pair, 'target', target_language, target_audiobook, target_section, target_segment,
       target_readers, target_start_sample, target_end_sample, score
FROM corpora
WHERE target_segment IS NOT NULL
