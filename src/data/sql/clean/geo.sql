-- Clean geolocation.
SELECT
    CAST(g.ind AS INT) AS ind,
    g.country AS country,
    array(CAST(g.latitude AS DOUBLE), CAST(g.longitude AS DOUBLE)) AS coordinates,
    g.timestamp AS timestamp
FROM raw_geo g
