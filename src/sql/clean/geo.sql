-- A clean geolocation. Times come with a blank or a `T` in the middle, which must not
-- keep two copies of one record apart.
SELECT d.ind AS ind, d.country AS country, array(d.latitude, d.longitude) AS coordinates, d.posted_at AS timestamp
FROM (
    SELECT DISTINCT
        CAST(g.ind AS INT) AS ind,
        g.country AS country,
        CAST(g.latitude AS DOUBLE) AS latitude,
        CAST(g.longitude AS DOUBLE) AS longitude,
        TRY_CAST(replace(g.timestamp, 'T', ' ') AS TIMESTAMP) AS posted_at
    FROM raw_geo g
) d
