-- Segments that stand in more than one pair.
WITH pairs AS (
    SELECT * FROM pairs_of($pairs)
),
sides AS (
    SELECT 'source' AS side, source_segment AS segment, score FROM pairs
    UNION ALL
    SELECT 'target', target_segment, score FROM pairs
)
SELECT side, segment, count(*)::BIGINT AS pairs, max(score) AS best_score, min(score) AS worst_score
FROM sides
GROUP BY side, segment
HAVING count(*) > 1
ORDER BY pairs DESC, side, segment
