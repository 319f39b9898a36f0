-- Of each recording that was heard: how much of it stands in some corpus, what overlaps counted once.
WITH walked AS (
    -- how far the spans before this one reach: what lies before that was counted already
    SELECT *, max(end_sample) OVER (
        PARTITION BY language, audiobook, section ORDER BY start_sample, end_sample
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
    FROM spans
),
counted AS (
    SELECT language, audiobook, section, count(*)::BIGINT AS pairs,
           sum(greatest(0, end_sample - greatest(start_sample, coalesce(reached, start_sample))))::BIGINT AS samples
    FROM walked
    GROUP BY ALL
)
SELECT language, audiobook, section, duration_s, speech_s,
       coalesce(pairs, 0)::BIGINT AS pairs, coalesce(samples, 0) / 16000.0 AS aligned_s
FROM sections
LEFT JOIN counted USING (language, audiobook, section)
