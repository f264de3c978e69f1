-- How many trips start in Coconino County.
SELECT count(*) AS trips
FROM trip
WHERE st_intersects(t_pickuploc, (SELECT z_boundary FROM zone WHERE z_name = 'Coconino County' LIMIT 1))
