-- How much of each audiobook is recurring speech, such as preambles, that is kept out of mining?
SELECT language, audiobook, count(*)::BIGINT AS segments,
       count(*) FILTER (recurring)::BIGINT AS recurring, count(*) FILTER (recurring) / count(*) AS recurring_share
FROM indexed
GROUP BY ALL
ORDER BY recurring_share DESC, language, audiobook
