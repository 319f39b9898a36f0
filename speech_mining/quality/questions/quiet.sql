-- Which spans of the corpora are the quietest, beside their recording's usual level?
WITH levels AS (
    SELECT *, median(level_dbfs) OVER (PARTITION BY language, audiobook, section) AS usual_dbfs FROM segments
)
SELECT DISTINCT spans.language, spans.audiobook, spans.section, segment, start_ms / 1000.0 AS start_s, level_dbfs,
       usual_dbfs, level_dbfs - usual_dbfs AS beside_usual_db
FROM spans
JOIN levels ON levels.segment_id = spans.segment AND levels.language = spans.language
ORDER BY level_dbfs, spans.language, segment
