-- How many hours are there at each threshold, over all pairs of languages?
-- Thresholds that some pair does not know, being kept from a higher score, are left out: a sum of some would mislead.
SELECT kind, threshold, sum(pairs)::BIGINT AS pairs,
       sum(source_sum_h) AS source_sum_h, sum(target_sum_h) AS target_sum_h,
       sum(source_union_h) AS source_union_h, sum(target_union_h) AS target_union_h,
       sum(postprocessed_pairs)::BIGINT AS postprocessed_pairs,
       sum(source_postprocessed_h) AS source_postprocessed_h, sum(target_postprocessed_h) AS target_postprocessed_h
FROM hours
GROUP BY kind, threshold
HAVING count(*) = (SELECT count(DISTINCT language_pair) FROM hours AS every WHERE every.kind = hours.kind)
ORDER BY kind, threshold
