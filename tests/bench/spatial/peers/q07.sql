-- The reported length of each trip against the straight line; a metre is about 0.000009 degrees.
WITH lengths AS (
    SELECT t_tripkey,
           t_distance AS reported_distance_m,
           st_length(st_makeline(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(t_dropoffloc))) / 0.000009 AS line_distance_m
    FROM trip
)
SELECT t_tripkey,
       reported_distance_m,
       line_distance_m,
       reported_distance_m / nullif(line_distance_m, 0) AS detour_ratio
FROM lengths
ORDER BY detour_ratio DESC NULLS LAST, reported_distance_m DESC, t_tripkey
