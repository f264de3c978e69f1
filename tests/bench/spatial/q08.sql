-- Trips that start within 0.0045 degrees (about 500 m) of each building.
SELECT b_buildingkey, b_name, count(*) AS nearby_pickups
FROM trip JOIN building ON st_dwithin(t_pickuploc, b_boundary, 0.0045)
GROUP BY b_buildingkey, b_name
ORDER BY nearby_pickups DESC, b_buildingkey
