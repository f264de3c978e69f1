-- Question 12 for a fortieth of the trips, few enough to hold all answers against each other.
SELECT t_tripkey, t_pickuploc, b_buildingkey, building_name, distance_to_building
FROM (SELECT * FROM trip WHERE t_tripkey % 40 = 7) AS trip
CROSS JOIN LATERAL (
    SELECT b_buildingkey,
           b_name AS building_name,
           ST_Distance(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(b_boundary)) AS distance_to_building
    FROM building
    ORDER BY distance_to_building
    LIMIT 5
) AS nearest
ORDER BY distance_to_building, b_buildingkey
