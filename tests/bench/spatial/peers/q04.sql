-- Where the 1,000 trips with the highest tips start.
WITH top AS (
    SELECT t_pickuploc FROM trip ORDER BY t_tip DESC, t_tripkey LIMIT 1000
)
SELECT z_zonekey, z_name, count(*) AS trip_count
FROM zone JOIN top ON st_within(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(z_boundary))
GROUP BY z_zonekey, z_name
ORDER BY trip_count DESC, z_zonekey
