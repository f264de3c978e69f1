-- How far apart each customer's trips of a month end: the area of the convex hull of their ends.
SELECT c_custkey,
       c_name,
       date_trunc('month', t_pickuptime) AS pickup_month,
       st_area(st_convexhull(st_collect_agg(t_dropoffloc))) AS hull_area
FROM trip JOIN customer ON t_custkey = c_custkey
GROUP BY c_custkey, c_name, pickup_month
HAVING count(*) > 5
ORDER BY count(*) DESC, c_custkey, pickup_month
