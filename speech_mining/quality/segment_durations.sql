-- Segments shorter or longer than allowed, or whose milliseconds are not those of their samples.
SELECT audiobook, section, segment_id, start_sample, end_sample, start_ms, end_ms,
       (end_sample - start_sample) / 16000.0 AS duration_s
FROM read_parquet($segments)
WHERE end_sample - start_sample NOT BETWEEN $shortest AND $longest
   OR start_ms <> start_sample // 16 OR end_ms <> end_sample // 16
   OR start_sample < 0
ORDER BY audiobook, section, start_sample, end_sample
