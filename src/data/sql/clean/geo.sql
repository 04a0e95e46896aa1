-- A clean geolocation. Times come with a blank or a `T` in the middle, which must not
-- keep two copies of one record apart.
SELECT
    CAST(g.ind AS INT) AS ind,
    g.country AS country,
    array(CAST(g.latitude AS DOUBLE), CAST(g.longitude AS DOUBLE)) AS coordinates,
    TRY_CAST(replace(g.timestamp, 'T', ' ') AS TIMESTAMP) AS timestamp
FROM raw_geo g
