-- Trips a month within 0.045 degrees of a box around Sedona.
SELECT date_trunc('month', t_pickuptime) AS pickup_month,
       count(t_tripkey) AS total_trips,
       avg(t_distance) AS avg_distance,
       avg(t_dropofftime - t_pickuptime) AS avg_duration,
       avg(t_fare) AS avg_fare
FROM trip
WHERE st_dwithin(ST_GeomFromWKB(t_pickuploc), ST_GeomFromText('POLYGON((-111.9060 34.7347, -111.6160 34.7347, -111.6160 35.0047, -111.9060 35.0047, -111.9060 34.7347))'), 0.045)
GROUP BY pickup_month
ORDER BY pickup_month
