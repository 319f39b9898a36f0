-- Which items are a near neighbour of suspiciously many others?
SELECT kind, language_pair, direction, neighbour, count(*)::BIGINT AS times
FROM (SELECT kind, language_pair, direction, unnest(neighbours) AS neighbour FROM neighbours)
WHERE neighbour >= 0
GROUP BY ALL
ORDER BY times DESC, kind, language_pair, direction, neighbour
LIMIT 100
