-- How many trips start in Coconino County.
SELECT count(*) AS trips
FROM trip
WHERE st_intersects(ST_GeomFromWKB(t_pickuploc), (SELECT ST_GeomFromWKB(z_boundary) FROM zone WHERE z_name = 'Coconino County' LIMIT 1))
