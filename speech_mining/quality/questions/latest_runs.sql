-- When was each asset last made, by which run, and how often in all?
SELECT asset, count(DISTINCT partition)::BIGINT AS partitions, count(*)::BIGINT AS materializations,
       date_trunc('second', max(recorded_at)) AS last_made, arg_max(run_id, recorded_at) AS by_run
FROM runs
GROUP BY asset
ORDER BY last_made DESC, asset
