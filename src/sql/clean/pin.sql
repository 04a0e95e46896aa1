-- A clean pin. Markers become NULL, `46k` becomes 46000, a repeated record counts once.
-- A follower count is digits, or digits and one letter; anything else is unknown.
SELECT DISTINCT
    CAST(p.index AS INT) AS ind,
    p.unique_id AS unique_id,
    CASE WHEN p.title IN ('No Title Data Available', '') THEN NULL ELSE p.title END AS title,
    CASE
        WHEN p.description IN ('No description available Story format', 'No description available', 'Untitled', '') THEN NULL
        ELSE p.description
    END AS description,
    CASE
        WHEN length(p.follower_count) > 12 THEN NULL
        WHEN translate(p.follower_count, '0123456789', '') = '' THEN TRY_CAST(p.follower_count AS BIGINT)
        WHEN translate(p.follower_count, '0123456789', '') IN ('k', 'K') AND lower(p.follower_count) LIKE '%k'
            THEN TRY_CAST(replace(lower(p.follower_count), 'k', '') AS BIGINT) * 1000
        WHEN translate(p.follower_count, '0123456789', '') IN ('m', 'M') AND lower(p.follower_count) LIKE '%m'
            THEN TRY_CAST(replace(lower(p.follower_count), 'm', '') AS BIGINT) * 1000000
    END AS follower_count,
    CASE WHEN p.poster_name IN ('User Info Error', '') THEN NULL ELSE p.poster_name END AS poster_name,
    CASE WHEN p.tag_list IN ('N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e', '') THEN NULL ELSE p.tag_list END AS tag_list,
    p.is_image_or_video AS is_image_or_video,
    CASE WHEN p.image_src IN ('Image src error.', '') THEN NULL ELSE p.image_src END AS image_src,
    CASE WHEN p.save_location LIKE 'Local save in %' THEN substr(p.save_location, 15) ELSE p.save_location END AS save_location,
    p.category AS category
FROM raw_pin p
