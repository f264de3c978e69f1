-- Trips by zone, for the zones within a box around Sedona.
SELECT z_zonekey,
       z_name,
       count(t_tripkey) AS total_pickups,
       avg(t_totalamount) AS avg_amount,
       avg(t_dropofftime - t_pickuptime) AS avg_duration
FROM trip JOIN zone ON st_within(t_pickuploc, z_boundary)
WHERE st_contains(st_makeenvelope(-112.2110, 34.4197, -111.3110, 35.3197), z_boundary)
GROUP BY z_zonekey, z_name
ORDER BY total_pickups DESC, z_zonekey
