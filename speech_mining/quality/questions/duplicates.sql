-- Which recordings are in the lake more than once, byte for byte, under several places?
SELECT sha256, count(*)::BIGINT AS copies, any_value(bytes) AS bytes,
       list(language || '/' || audiobook || '/' || section ORDER BY language, audiobook, section) AS places
FROM recordings
GROUP BY sha256
HAVING count(*) > 1
ORDER BY copies DESC, sha256
