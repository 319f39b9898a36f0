-- Samples of both sides of the pairs at one threshold: added up, and with overlapping spans of a recording counted once.
-- $pairs: parquet files with the columns of records.PAIRS; $threshold: lowest score.
WITH pairs AS (
    SELECT * FROM pairs_of($pairs) WHERE score >= $threshold
),
spans AS (
    SELECT 'source' AS side, source_audiobook AS audiobook, source_section AS section,
           source_start_sample AS start_sample, source_end_sample AS end_sample FROM pairs
    UNION ALL
    SELECT 'target', target_audiobook, target_section, target_start_sample, target_end_sample FROM pairs
),
walked AS (
    -- how far the spans before this one reach: what lies before that was counted already
    SELECT *, max(end_sample) OVER (
        PARTITION BY side, audiobook, section ORDER BY start_sample, end_sample
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
    FROM spans
)
SELECT side,
       count(*)::BIGINT AS pairs,
       sum(end_sample - start_sample)::BIGINT AS sum_samples,
       sum(greatest(0, end_sample - greatest(start_sample, coalesce(reached, start_sample))))::BIGINT AS union_samples
FROM walked
GROUP BY side
ORDER BY side
