-- Segments of which too little is speech, or whose coverage is no share. NaN sorts above every number and is caught by
-- the upper bound. A plain comparison would be answered from the file's statistics, which know of no NaN, so that the
-- row is never read: coalesce keeps the question with the rows.
SELECT audiobook, section, segment_id, start_ms, end_ms, coverage
FROM read_parquet($segments)
WHERE NOT coalesce(coverage BETWEEN $least AND 1 AND NOT isnan(coverage), false)
ORDER BY coverage, audiobook, section, start_sample, end_sample
