-- Pairs with a side shorter or longer than allowed.
SELECT score, source_segment, target_segment,
       (source_end_sample - source_start_sample) / 16000.0 AS source_duration_s,
       (target_end_sample - target_start_sample) / 16000.0 AS target_duration_s
FROM pairs_of($pairs)
WHERE source_end_sample - source_start_sample NOT BETWEEN $shortest AND $longest
   OR target_end_sample - target_start_sample NOT BETWEEN $shortest AND $longest
ORDER BY score DESC, source_segment, target_segment
