-- How long are the spans of each corpus, on either side, in seconds?
SELECT kind, language_pair, side, count(*)::BIGINT AS spans,
       min(end_sample - start_sample) / 16000.0 AS shortest_s,
       quantile_cont((end_sample - start_sample) / 16000.0, 0.1) AS p10_s,
       quantile_cont((end_sample - start_sample) / 16000.0, 0.5) AS median_s,
       quantile_cont((end_sample - start_sample) / 16000.0, 0.9) AS p90_s,
       max(end_sample - start_sample) / 16000.0 AS longest_s
FROM spans
GROUP BY ALL
ORDER BY ALL
