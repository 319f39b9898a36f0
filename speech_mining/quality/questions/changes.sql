-- What did mining again change, figure by figure?
SELECT kind, language_pair, materialization, recorded_at, figure, value,
       value - lag(value) OVER (PARTITION BY kind, language_pair, figure ORDER BY materialization) AS change
FROM history
ORDER BY kind, language_pair, figure, materialization
