-- How much of each language's audio, and of its speech, is aligned with some other language or text?
SELECT language, count(DISTINCT audiobook)::BIGINT AS audiobooks, count(*)::BIGINT AS recordings,
       sum(duration_s) / 3600 AS audio_h, sum(speech_s) / 3600 AS speech_h, sum(aligned_s) / 3600 AS aligned_h,
       sum(aligned_s) / nullif(sum(duration_s), 0) AS aligned_share
FROM aligned
GROUP BY ALL
ORDER BY language
