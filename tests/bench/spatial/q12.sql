-- The five buildings nearest to the start of each trip.
SELECT t_tripkey,
       t_pickuploc,
       b_buildingkey,
       b_name AS building_name,
       st_distance(t_pickuploc, b_boundary) AS distance_to_building
FROM trip JOIN building ON st_knn(t_pickuploc, b_boundary, 5)
ORDER BY distance_to_building, b_buildingkey
