-- Clean user. First and last name are joined with one space; if one is missing, the other remains.
SELECT
    CAST(u.ind AS INT) AS ind,
    nullif(trim(concat_ws(' ', u.first_name, u.last_name)), '') AS user_name,
    CAST(u.age AS INT) AS age,
    u.date_joined AS date_joined
FROM raw_user u
