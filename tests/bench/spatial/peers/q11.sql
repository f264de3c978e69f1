-- Trips that start in one zone and end in another.
SELECT count(*) AS cross_zone_trips
FROM trip
JOIN zone AS pickup ON st_within(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(pickup.z_boundary))
JOIN zone AS dropoff ON st_within(ST_GeomFromWKB(t_dropoffloc), ST_GeomFromWKB(dropoff.z_boundary))
WHERE pickup.z_zonekey <> dropoff.z_zonekey
