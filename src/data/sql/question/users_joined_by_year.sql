-- Number of users by join year. A user with several posts counts once.
SELECT u.join_year AS join_year, count(*) AS number_users_joined
FROM (
    SELECT DISTINCT user_name, age, date_joined, join_year
    FROM post
    WHERE join_year BETWEEN 2015 AND 2020
) u
GROUP BY u.join_year
ORDER BY join_year
