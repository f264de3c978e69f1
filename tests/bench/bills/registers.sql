-- Bills of a month from the registers at its two ends: time-of-use prices, and a surcharge on what passes the first and
-- the second tier. Prices in yuan per kWh; rounded half up to the cent (fen) once, at the end.
WITH price AS (
    SELECT CAST('0.9583' AS DECIMAL(6, 4)) AS peak, CAST('0.6683' AS DECIMAL(6, 4)) AS flat,
           CAST('0.3283' AS DECIMAL(6, 4)) AS valley,
           CAST('0.0500' AS DECIMAL(6, 4)) AS second, CAST('0.3000' AS DECIMAL(6, 4)) AS third,
           CAST('230' AS DECIMAL(22, 3)) AS second_from, CAST('400' AS DECIMAL(22, 3)) AS third_from,
           CAST('0' AS DECIMAL(22, 3)) AS nothing
), used AS (
    SELECT customer_id,
           sum(CASE WHEN register = 1 THEN CASE WHEN ts = TIMESTAMPTZ '2024-03-31T16:00:00Z' THEN reading_kwh ELSE -reading_kwh END END) AS peak_kwh,
           sum(CASE WHEN register = 2 THEN CASE WHEN ts = TIMESTAMPTZ '2024-03-31T16:00:00Z' THEN reading_kwh ELSE -reading_kwh END END) AS flat_kwh,
           sum(CASE WHEN register = 3 THEN CASE WHEN ts = TIMESTAMPTZ '2024-03-31T16:00:00Z' THEN reading_kwh ELSE -reading_kwh END END) AS valley_kwh
    FROM 'FOLDER/register_reading.parquet'
    WHERE ts = TIMESTAMPTZ '2024-02-29T16:00:00Z' OR ts = TIMESTAMPTZ '2024-03-31T16:00:00Z'
    GROUP BY customer_id
), total AS (
    SELECT *, CAST(peak_kwh + flat_kwh + valley_kwh AS DECIMAL(22, 3)) AS total_kwh FROM used
)
SELECT customer_id, CAST(total_kwh AS DECIMAL(14, 3)) AS total_kwh,
       CAST(CAST(peak_kwh AS DECIMAL(18, 3)) * peak + CAST(flat_kwh AS DECIMAL(18, 3)) * flat
          + CAST(valley_kwh AS DECIMAL(18, 3)) * valley
          + CAST(greatest(least(total_kwh, third_from) - second_from, nothing) AS DECIMAL(18, 3)) * second
          + CAST(greatest(total_kwh - third_from, nothing) AS DECIMAL(18, 3)) * third AS DECIMAL(14, 2)) AS amount_yuan
FROM total CROSS JOIN price
