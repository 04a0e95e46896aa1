-- Clean geolocation. Times contain a space or a `T` between date and time; both become a space, so
-- that duplicates are equal.
SELECT
    CAST(g.ind AS INT) AS ind,
    g.country AS country,
    array(CAST(g.latitude AS DOUBLE), CAST(g.longitude AS DOUBLE)) AS coordinates,
    TRY_CAST(replace(g.timestamp, 'T', ' ') AS TIMESTAMP) AS timestamp
FROM raw_geo g
