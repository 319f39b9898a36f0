-- What was refused on the way, where and why?
SELECT layer, language, reason, count(*)::BIGINT AS refused, count(DISTINCT audiobook)::BIGINT AS audiobooks,
       any_value(detail) AS example
FROM rejections
GROUP BY layer, language, reason
ORDER BY refused DESC, layer, language, reason
