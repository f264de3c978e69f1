-- Bills of a month from the consumption of each hour: the hour in local time chooses the price.
WITH price AS (
    SELECT CAST('0.9583' AS DECIMAL(6, 4)) AS peak, CAST('0.6683' AS DECIMAL(6, 4)) AS flat,
           CAST('0.3283' AS DECIMAL(6, 4)) AS valley,
           CAST('0.0500' AS DECIMAL(6, 4)) AS second, CAST('0.3000' AS DECIMAL(6, 4)) AS third,
           CAST('230' AS DECIMAL(22, 3)) AS second_from, CAST('400' AS DECIMAL(22, 3)) AS third_from,
           CAST('0' AS DECIMAL(22, 3)) AS nothing
), hourly AS (
    SELECT customer_id, used_kwh, date_part('hour', ts AT TIME ZONE 'Asia/Shanghai') AS hour
    FROM 'FOLDER/hourly_reading.parquet'
    WHERE ts >= TIMESTAMPTZ '2024-02-29T16:00:00Z' AND ts < TIMESTAMPTZ '2024-03-31T16:00:00Z'
), used AS (
    SELECT customer_id,
           sum(CASE WHEN hour BETWEEN 8 AND 10 OR hour BETWEEN 18 AND 22 THEN used_kwh ELSE CAST('0' AS DECIMAL(12, 3)) END) AS peak_kwh,
           sum(CASE WHEN hour < 7 OR hour = 23 THEN used_kwh ELSE CAST('0' AS DECIMAL(12, 3)) END) AS valley_kwh,
           sum(used_kwh) AS total_kwh
    FROM hourly GROUP BY customer_id
), total AS (
    SELECT customer_id, peak_kwh, valley_kwh, total_kwh - peak_kwh - valley_kwh AS flat_kwh,
           CAST(total_kwh AS DECIMAL(22, 3)) AS total_kwh FROM used
)
SELECT customer_id, CAST(total_kwh AS DECIMAL(14, 3)) AS total_kwh,
       CAST(CAST(peak_kwh AS DECIMAL(18, 3)) * peak + CAST(flat_kwh AS DECIMAL(18, 3)) * flat
          + CAST(valley_kwh AS DECIMAL(18, 3)) * valley
          + CAST(greatest(least(total_kwh, third_from) - second_from, nothing) AS DECIMAL(18, 3)) * second
          + CAST(greatest(total_kwh - third_from, nothing) AS DECIMAL(18, 3)) * third AS DECIMAL(14, 2)) AS amount_yuan
FROM total CROSS JOIN price
