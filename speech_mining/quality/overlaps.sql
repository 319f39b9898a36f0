-- Spans that begin before an earlier span of their recording has ended, on either side.
WITH pairs AS (
    SELECT * FROM pairs_of($pairs)
),
spans AS (
    SELECT 'source' AS side, source_audiobook AS audiobook, source_section AS section, score,
           source_segment AS segment, source_start_sample AS start_sample, source_end_sample AS end_sample FROM pairs
    UNION ALL
    SELECT 'target', target_audiobook, target_section, score, target_segment, target_start_sample, target_end_sample
    FROM pairs
),
walked AS (
    SELECT *, max(end_sample) OVER (
        PARTITION BY side, audiobook, section ORDER BY start_sample, end_sample, segment, score
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
    FROM spans
)
SELECT side, audiobook, section, segment, start_sample, end_sample, reached AS earlier_end_sample, score
FROM walked
WHERE reached > start_sample
ORDER BY side, audiobook, section, start_sample, end_sample, segment, score
