-- Trips that start in one zone and end in another.
SELECT count(*) AS cross_zone_trips
FROM trip
JOIN zone AS pickup ON st_within(t_pickuploc, pickup.z_boundary)
JOIN zone AS dropoff ON st_within(t_dropoffloc, dropoff.z_boundary)
WHERE pickup.z_zonekey <> dropoff.z_zonekey
