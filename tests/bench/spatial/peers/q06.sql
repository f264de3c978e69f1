-- Trips by zone, for the zones within a box around Sedona. The question as published takes a box of 0.9 degrees; none of
-- these zones, which are whole counties and states, lies within it, so the box is of 6 degrees about the same centre.
SELECT z_zonekey,
       z_name,
       count(t_tripkey) AS total_pickups,
       avg(t_totalamount) AS avg_amount,
       avg(t_dropofftime - t_pickuptime) AS avg_duration
FROM trip JOIN zone ON st_within(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(z_boundary))
WHERE st_contains(ST_GeomFromText('POLYGON((-114.7610 31.8697, -108.7610 31.8697, -108.7610 37.8697, -114.7610 37.8697, -114.7610 31.8697))'), ST_GeomFromWKB(z_boundary))
GROUP BY z_zonekey, z_name
ORDER BY total_pickups DESC, z_zonekey
