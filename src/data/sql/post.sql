-- One row for each post: the join of its pin, geolocation and user.
SELECT
    p.ind AS ind,
    p.category AS category,
    p.poster_name AS poster_name,
    p.follower_count AS follower_count,
    g.country AS country,
    CAST(EXTRACT(YEAR FROM g.timestamp) AS INT) AS post_year,
    u.user_name AS user_name,
    u.age AS age,
    u.date_joined AS date_joined,
    CAST(EXTRACT(YEAR FROM u.date_joined) AS INT) AS join_year,
    CASE
        WHEN u.age BETWEEN 18 AND 24 THEN '18-24'
        WHEN u.age BETWEEN 25 AND 35 THEN '25-35'
        WHEN u.age BETWEEN 36 AND 50 THEN '36-50'
        WHEN u.age > 50 THEN '50+'
    END AS age_group
FROM clean_pin p
JOIN clean_geo g ON g.ind = p.ind
JOIN clean_user u ON u.ind = p.ind
