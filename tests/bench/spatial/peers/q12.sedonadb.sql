-- The five buildings nearest to the start of each trip.
SELECT t_tripkey,
       t_pickuploc,
       b_buildingkey,
       b_name AS building_name,
       st_distance(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(b_boundary)) AS distance_to_building
FROM trip JOIN building ON ST_KNN(ST_GeomFromWKB(t_pickuploc), ST_GeomFromWKB(b_boundary), 5, FALSE)
ORDER BY distance_to_building, b_buildingkey
