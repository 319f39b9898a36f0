-- Which pairs of speech are much longer on one side than is usual between the two languages?
WITH lengths AS (
    SELECT *, (source_end_sample - source_start_sample) / 16000.0 AS source_s,
           (target_end_sample - target_start_sample) / 16000.0 AS target_s
    FROM corpora
    WHERE kind = 's2s'
),
usual AS (
    SELECT *, median(target_s / source_s) OVER (PARTITION BY language_pair) AS usual_ratio FROM lengths
)
SELECT language_pair, score, source_audiobook, source_section, source_s, target_audiobook, target_section, target_s,
       target_s / source_s AS ratio, usual_ratio
FROM usual
WHERE greatest(target_s / source_s / usual_ratio, source_s / target_s * usual_ratio) > 1.5
ORDER BY abs(ln(target_s / source_s / usual_ratio)) DESC, language_pair, source_segment
