-- Whose readings are aligned, and how much of them?
SELECT language, readers, count(*)::BIGINT AS recordings, sum(duration_s) / 3600 AS audio_h,
       sum(aligned_s) / 3600 AS aligned_h, sum(aligned_s) / nullif(sum(duration_s), 0) AS aligned_share
FROM aligned
JOIN recordings USING (language, audiobook, section)
GROUP BY ALL
ORDER BY aligned_h DESC, language, readers
