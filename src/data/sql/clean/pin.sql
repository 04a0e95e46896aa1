-- Clean pin. Markers become NULL, `46k` becomes 46000.
-- A follower count is digits, optionally followed by `k`, `m` or a fraction of zeros; any other text
-- becomes NULL.
SELECT
    CAST(p.index AS INT) AS ind,
    p.unique_id AS unique_id,
    nullif(nullif(p.title, 'No Title Data Available'), '') AS title,
    nullif(
        nullif(nullif(nullif(p.description, 'No description available Story format'), 'No description available'), 'Untitled'), ''
    ) AS description,
    CASE
        WHEN length(p.follower_count) > 12 THEN NULL
        WHEN translate(p.follower_count, '0123456789', '') = '' THEN TRY_CAST(p.follower_count AS BIGINT)
        WHEN translate(p.follower_count, '0123456789', '') IN ('k', 'K') AND lower(p.follower_count) LIKE '%k'
            THEN TRY_CAST(replace(lower(p.follower_count), 'k', '') AS BIGINT) * 1000
        WHEN translate(p.follower_count, '0123456789', '') IN ('m', 'M') AND lower(p.follower_count) LIKE '%m'
            THEN TRY_CAST(replace(lower(p.follower_count), 'm', '') AS BIGINT) * 1000000
        WHEN translate(p.follower_count, '0123456789', '') = '.' AND p.follower_count LIKE '%.0%'
            AND translate(split_part(p.follower_count, '.', 2), '0', '') = ''
            THEN TRY_CAST(split_part(p.follower_count, '.', 1) AS BIGINT)
    END AS follower_count,
    nullif(nullif(p.poster_name, 'User Info Error'), '') AS poster_name,
    nullif(nullif(p.tag_list, 'N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e'), '') AS tag_list,
    p.is_image_or_video AS is_image_or_video,
    nullif(nullif(p.image_src, 'Image src error.'), '') AS image_src,
    CASE WHEN p.save_location LIKE 'Local save in %' THEN substr(p.save_location, 15) ELSE p.save_location END AS save_location,
    p.category AS category
FROM raw_pin p
