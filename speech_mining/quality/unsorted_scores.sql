-- Rows of one file whose score is higher than the row before, below the threshold, or no number.
-- coalesce and the upper bound: see segment_coverage.sql.
WITH numbered AS (
    SELECT *, lag(score) OVER (ORDER BY file_row_number) AS previous_score
    FROM pairs_of($pairs)
)
SELECT file_row_number::BIGINT AS "row", score, previous_score, source_segment, target_segment
FROM numbered
WHERE NOT coalesce(score BETWEEN $threshold AND coalesce(previous_score, 'infinity'::DOUBLE), false)
   OR isnan(score)
ORDER BY file_row_number
