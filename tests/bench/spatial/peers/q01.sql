-- Trips that start within 0.45 degrees (about 50 km) of the centre of Sedona, nearest first.
SELECT t_tripkey,
       st_x(ST_GeomFromWKB(t_pickuploc)) AS pickup_lon,
       st_y(ST_GeomFromWKB(t_pickuploc)) AS pickup_lat,
       t_pickuptime,
       st_distance(ST_GeomFromWKB(t_pickuploc), st_point(-111.7610, 34.8697)) AS distance_to_center
FROM trip
WHERE st_dwithin(ST_GeomFromWKB(t_pickuploc), st_point(-111.7610, 34.8697), 0.45)
ORDER BY distance_to_center, t_tripkey
