-- Question 12 for a fortieth of the trips, few enough to hold all answers against each other.
SELECT t_tripkey,
       t_pickuploc,
       b_buildingkey,
       b_name AS building_name,
       st_distance(t_pickuploc, b_boundary) AS distance_to_building
FROM (SELECT * FROM trip WHERE t_tripkey % 40 = 7) AS trip JOIN building ON st_knn(t_pickuploc, b_boundary, 5)
ORDER BY distance_to_building, b_buildingkey
