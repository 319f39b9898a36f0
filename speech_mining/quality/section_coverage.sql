-- Of each recording: its candidates, and the share of its announced length that lies in at least one of them.
-- $segments, $recordings: parquet files with the columns of records.SEGMENTS and records.RECORDINGS.
WITH walked AS (
    SELECT *, max(end_sample) OVER (
        PARTITION BY audiobook, section ORDER BY start_sample, end_sample
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
    FROM read_parquet($segments)
),
covered AS (
    SELECT audiobook, section, count(*)::BIGINT AS candidates,
           sum(greatest(0, end_sample - greatest(start_sample, coalesce(reached, start_sample))))::BIGINT AS samples
    FROM walked
    GROUP BY audiobook, section
)
SELECT recordings.audiobook, recordings.section, recordings.announced_s,
       coalesce(candidates, 0)::BIGINT AS candidates,
       coalesce(samples, 0) / 16000.0 AS covered_s,
       CASE WHEN announced_s > 0 THEN coalesce(samples, 0) / 16000.0 / announced_s ELSE 0.0 END AS share
FROM read_parquet($recordings) AS recordings
LEFT JOIN covered USING (audiobook, section)
ORDER BY share, recordings.audiobook, recordings.section
