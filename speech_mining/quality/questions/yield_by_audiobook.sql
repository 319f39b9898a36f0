-- Which audiobooks give most, and which nothing?
SELECT language, audiobook, sum(duration_s) / 3600 AS audio_h, sum(aligned_s) / 3600 AS aligned_h,
       sum(aligned_s) / nullif(sum(duration_s), 0) AS aligned_share, sum(pairs)::BIGINT AS pairs
FROM aligned
GROUP BY ALL
ORDER BY aligned_share DESC NULLS LAST, language, audiobook
