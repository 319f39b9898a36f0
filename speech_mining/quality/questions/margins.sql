-- How are the margins of each pair of languages distributed, in steps of a hundredth?
SELECT kind, language_pair, floor(score * 100 + 1e-9) / 100 AS from_score, count(*)::BIGINT AS pairs
FROM pairs
GROUP BY ALL
ORDER BY ALL
