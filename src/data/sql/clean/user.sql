-- Clean user. First and last name are joined with one space.
SELECT
    CAST(u.ind AS INT) AS ind,
    u.first_name || ' ' || u.last_name AS user_name,
    CAST(u.age AS INT) AS age,
    TRY_CAST(replace(u.date_joined, 'T', ' ') AS TIMESTAMP) AS date_joined
FROM raw_user u
