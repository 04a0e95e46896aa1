//! Generates posts with the statistics of the original data set: the same shares of dirty values,
//! the same numbers of countries, users and categories, and the same skew.

use std::collections::HashSet;

use chrono::{Duration, NaiveDate, NaiveDateTime};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::base::model::Kind;
use crate::clients::database::{Cell, Rows};
use crate::stages::source::words::{
    ADJECTIVES, BRANDS, CATEGORIES, COUNTRIES, Category, DECORATIONS, FIRST_NAMES, LAST_NAMES,
    OFFERS, SENTENCES,
};

/// Number of posts in the original data set.
pub const DEFAULT_POSTS: u32 = 11_154;
/// Number of distinct users in the original data set.
const REAL_USERS: f64 = 5_307.0;
/// Seconds between the first and the last `date_joined`.
const JOIN_SECONDS: f64 = 2.0 * 365.0 * 86_400.0;
/// Seconds between the first and the last `timestamp`.
const POST_SECONDS: i64 = 5 * 365 * 86_400;

struct User {
    first_name: &'static str,
    last_name: &'static str,
    age: i64,
    joined: NaiveDateTime,
    country: usize,
    latitude: f64,
    longitude: f64,
}

/// Generates the three tables with `posts` rows each. Equal arguments generate equal rows.
pub fn generate(posts: u32, seed: u64) -> Vec<Rows> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let users = users(posts, &mut random);
    let mut tables = Kind::ALL.map(|kind| Rows { kind, rows: Vec::with_capacity(posts as usize) });
    let mut posters: Vec<(String, String)> = Vec::new();
    let mut categories = CATEGORIES
        .iter()
        .flat_map(|category| std::iter::repeat_n(category, share(category.posts, posts)));
    for (number, user) in users.iter().enumerate() {
        let number = number as i64;
        // Shares are rounded up, so the last category may have fewer posts than its share.
        let category = categories.next().unwrap_or(&CATEGORIES[CATEGORIES.len() - 1]);
        tables[0].rows.push(pin(number, category, &mut posters, &mut random));
        let posted =
            midnight(2017, 10, 19) + Duration::seconds(random.random_range(0..POST_SECONDS));
        tables[1].rows.push(vec![
            Cell::Integer(number),
            Cell::DateTime(posted),
            Cell::Float(user.latitude),
            Cell::Float(user.longitude),
            Cell::Text(COUNTRIES[user.country].into()),
        ]);
        tables[2].rows.push(vec![
            Cell::Integer(number),
            Cell::Text(user.first_name.into()),
            Cell::Text(user.last_name.into()),
            Cell::Integer(user.age),
            Cell::DateTime(user.joined),
        ]);
    }
    tables.into()
}

/// Scales a number of posts of the original data set to a data set of `posts` posts, rounded up.
fn share(of_real: u32, posts: u32) -> usize {
    (u64::from(of_real) * u64::from(posts)).div_ceil(u64::from(DEFAULT_POSTS)) as usize
}

fn midnight(year: i32, month: u32, day: u32) -> NaiveDateTime {
    NaiveDate::from_ymd_opt(year, month, day)
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .unwrap_or_default()
}

/// Returns the user of each post, in random order.
///
/// A few users have most of the posts. In the original data set, users with more posts have earlier
/// dates, a lower age, and names and countries nearer to the start of the alphabet. Therefore each
/// value is drawn from the lower part of its range; this part shrinks with the number of posts.
fn users(posts: u32, random: &mut ChaCha8Rng) -> Vec<std::rc::Rc<User>> {
    let count = ((f64::from(posts) * REAL_USERS / f64::from(DEFAULT_POSTS)).round() as usize)
        .clamp(1, posts as usize);
    // Each user gets one post. The remaining posts are distributed by heavy-tailed weights.
    let mut cumulative_weights = Vec::with_capacity(count);
    let mut sum = 0.0;
    for _ in 0..count {
        let uniform: f64 = random.random();
        sum += ((1.0 - uniform).powf(-1.0 / 1.05)).min(250.0);
        cumulative_weights.push(sum);
    }
    let mut post_counts = vec![1u32; count];
    for _ in count..posts as usize {
        let draw = random.random_range(0.0..sum);
        let user = cumulative_weights.partition_point(|upper| *upper <= draw);
        post_counts[user.min(count - 1)] += 1;
    }
    let mut seen = HashSet::new();
    let mut distinct_users: Vec<User> = post_counts
        .iter()
        .map(|post_count| {
            let scale = f64::from(*post_count).powf(-0.75);
            loop {
                let user = user(scale, random);
                if seen.insert((user.first_name, user.last_name, user.age, user.joined)) {
                    break user;
                }
            }
        })
        .collect();
    fill_empty_countries(&mut distinct_users, &post_counts);
    let mut rows = Vec::with_capacity(posts as usize);
    for (user, post_count) in distinct_users.into_iter().zip(post_counts) {
        let user = std::rc::Rc::new(user);
        rows.extend(std::iter::repeat_n(user, post_count as usize));
    }
    rows.shuffle(random);
    rows
}

fn user(scale: f64, random: &mut ChaCha8Rng) -> User {
    let mut part = || random.random::<f64>() * scale;
    let pick = |part: f64, length: usize| ((part * length as f64) as usize).min(length - 1);
    let rounded = |number: f64| (number * 10_000.0).round() / 10_000.0;
    User {
        first_name: FIRST_NAMES[pick(part(), FIRST_NAMES.len())],
        last_name: LAST_NAMES[pick(part(), LAST_NAMES.len())],
        age: 20 + pick(part(), 41) as i64,
        joined: midnight(2015, 10, 21) + Duration::seconds((part() * JOIN_SECONDS) as i64),
        country: pick(part(), COUNTRIES.len()),
        latitude: rounded(-90.0 + 180.0 * part()),
        longitude: rounded(-180.0 + 360.0 * part()),
    }
}

/// Moves users with a single post to countries without users, until there is no such country or
/// no such user left.
fn fill_empty_countries(users: &mut [User], post_counts: &[u32]) {
    let mut user_counts = [0u32; COUNTRIES.len()];
    for user in users.iter() {
        user_counts[user.country] += 1;
    }
    let mut empty: Vec<usize> =
        (0..COUNTRIES.len()).filter(|country| user_counts[*country] == 0).collect();
    for (user, post_count) in users.iter_mut().zip(post_counts) {
        let Some(country) = empty.last() else { return };
        if *post_count == 1 && user_counts[user.country] > 1 {
            user_counts[user.country] -= 1;
            user.country = *country;
            empty.pop();
        }
    }
}

/// Dirty values of a pin. A story pin may lack values that other pins have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dirt {
    None,
    NoDescription,
    NoTags,
    Untitled,
    Story,
    StoryWithoutImage,
    StoryWithoutTitle,
    StoryWithoutAnything,
}

/// Number of pins with each kind of dirty values among 2,562 pins of the original data set.
const DIRT: [(Dirt, u32); 8] = [
    (Dirt::None, 2360),
    (Dirt::NoDescription, 36),
    (Dirt::NoTags, 10),
    (Dirt::Untitled, 1),
    (Dirt::Story, 112),
    (Dirt::StoryWithoutImage, 25),
    (Dirt::StoryWithoutTitle, 2),
    (Dirt::StoryWithoutAnything, 16),
];

fn pin(
    number: i64,
    category: &Category,
    posters: &mut Vec<(String, String)>,
    random: &mut ChaCha8Rng,
) -> Vec<Cell> {
    let dirt =
        DIRT.choose_weighted(random, |(_, weight)| *weight).map_or(Dirt::None, |(dirt, _)| *dirt);
    let is_story =
        !matches!(dirt, Dirt::None | Dirt::NoDescription | Dirt::NoTags | Dirt::Untitled);
    let has_image = !matches!(
        dirt,
        Dirt::StoryWithoutImage | Dirt::StoryWithoutTitle | Dirt::StoryWithoutAnything
    );
    let has_nothing = dirt == Dirt::StoryWithoutAnything;
    let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
    let title = match dirt {
        Dirt::StoryWithoutAnything => "No Title Data Available".to_string(),
        Dirt::StoryWithoutTitle => String::new(),
        _ => title(category, random),
    };
    let description = match dirt {
        Dirt::NoDescription => "No description available".to_string(),
        Dirt::Untitled => "Untitled".to_string(),
        _ if is_story => "No description available Story format".to_string(),
        _ => description(category, random),
    };
    let (poster, followers) = if has_nothing {
        ("User Info Error".to_string(), "User Info Error".to_string())
    } else {
        poster(posters, random)
    };
    let tags = if has_nothing || dirt == Dirt::NoTags {
        "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e".to_string()
    } else {
        tags(category, random)
    };
    let medium = if is_story {
        "multi-video(story page format)"
    } else if random.random_bool(76.0 / 2407.0) {
        "video"
    } else {
        "image"
    };
    let hash: u128 = random.random();
    let hash = format!("{hash:032x}");
    let image = if has_image {
        format!(
            "https://i.pinimg.example/originals/{}/{}/{}/{hash}.jpg",
            &hash[..2],
            &hash[2..4],
            &hash[4..6]
        )
    } else {
        "Image src error.".to_string()
    };
    vec![
        Cell::Integer(number),
        Cell::Text(id.to_string()),
        Cell::Text(title),
        Cell::Text(description),
        Cell::Text(poster),
        Cell::Text(followers),
        Cell::Text(tags),
        Cell::Text(medium.into()),
        Cell::Text(image),
        Cell::Integer(i64::from(has_image)),
        Cell::Text(format!("Local save in /data/{}", category.name)),
        Cell::Text(category.name.into()),
    ]
}

/// Chooses one of the words.
fn choose_word<'a>(words: &[&'a str], random: &mut ChaCha8Rng) -> &'a str {
    words.choose(random).copied().unwrap_or_default()
}

fn title(category: &Category, random: &mut ChaCha8Rng) -> String {
    let subject = choose_word(&category.subjects, random);
    let mut title = format!(
        "{} {} {subject} {}",
        random.random_range(5..65),
        choose_word(ADJECTIVES, random),
        choose_word(OFFERS, random)
    );
    if random.random_bool(0.1) {
        title = format!("{title} {}", choose_word(DECORATIONS, random));
    }
    if random.random_bool(0.01) {
        title = format!("\"{title}\"");
    }
    title
}

fn description(category: &Category, random: &mut ChaCha8Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(1..4) {
        let sentence =
            choose_word(SENTENCES, random).replace("{}", choose_word(&category.subjects, random));
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&sentence);
    }
    // Long descriptions are truncated and end in a no-break space, like 40% of the original ones.
    if text.chars().count() > 150 {
        text = text.chars().take(178).collect();
        text.push_str("…\u{a0}");
    }
    text
}

fn tags(category: &Category, random: &mut ChaCha8Rng) -> String {
    let mut tags: Vec<String> = category
        .subjects
        .iter()
        .map(|subject| format!("{} {subject}", choose_word(ADJECTIVES, random)))
        .collect();
    tags.shuffle(random);
    tags.truncate(9);
    tags.join(",")
}

/// Returns the name and the follower count of a poster. About a third of the pins have a poster
/// that already occurred.
fn poster(posters: &mut Vec<(String, String)>, random: &mut ChaCha8Rng) -> (String, String) {
    if random.random_bool(0.34)
        && let Some(known) = posters.choose(random)
    {
        return known.clone();
    }
    let name = format!(
        "{} {} {}",
        choose_word(FIRST_NAMES, random),
        choose_word(LAST_NAMES, random),
        choose_word(BRANDS, random)
    );
    let name = if random.random_bool(0.017) { format!("{name} ") } else { name };
    let scale = random.random_range(0..1000);
    let followers = if scale < 161 {
        format!("{}", random.random_range(0..973))
    } else if scale < 928 {
        // Few posters have many followers: the logarithm of the count is uniformly distributed.
        format!("{}k", 10f64.powf(random.random_range(0.0..2.9945)) as u32)
    } else {
        format!(
            "{}M",
            [1, 1, 2, 2, 2, 2, 3, 4, 5, 5, 6, 8, 15].choose(random).copied().unwrap_or(1)
        )
    };
    posters.push((name.clone(), followers.clone()));
    (name, followers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(rows: &Rows, column: usize) -> Vec<String> {
        rows.rows.iter().map(|row| format!("{:?}", row[column])).collect()
    }

    fn share_of(rows: &Rows, column: usize, text: &str) -> f64 {
        let cell = format!("{:?}", Cell::Text(text.into()));
        texts(rows, column).iter().filter(|value| **value == cell).count() as f64
            / rows.rows.len() as f64
    }

    #[test]
    fn default_posts_have_the_statistics_of_the_original_data_set() {
        let tables = generate(DEFAULT_POSTS, 100);
        assert!(tables.iter().all(|table| table.rows.len() == 11_154));
        let countries: HashSet<String> = texts(&tables[1], 4).into_iter().collect();
        assert_eq!(countries.len(), 243);
        let users: HashSet<String> =
            tables[2].rows.iter().map(|row| format!("{:?}", &row[1..])).collect();
        assert_eq!(users.len(), 5_307);
        let categories: HashSet<String> = texts(&tables[0], 11).into_iter().collect();
        assert_eq!(categories.len(), 13);
        for (column, marker, real) in [
            (5, "User Info Error", 0.0062),
            (3, "No description available Story format", 0.0605),
            (8, "Image src error.", 0.0168),
            (6, "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e", 0.0101),
        ] {
            let share = share_of(&tables[0], column, marker);
            assert!(
                (share - real).abs() < real * 0.4,
                "the share of `{marker}` is {share}, expected about {real}"
            );
        }
    }

    #[test]
    fn equal_seeds_generate_equal_records_and_different_seeds_do_not() {
        let (a, b, c) = (generate(200, 1), generate(200, 1), generate(200, 2));
        for table in 0..3 {
            assert_eq!(a[table].rows, b[table].rows);
            assert_ne!(a[table].rows, c[table].rows);
        }
    }

    #[test]
    fn generates_all_rows_of_a_few_posts() {
        for posts in [1, 2, 13, 100] {
            assert!(generate(posts, 5).iter().all(|table| table.rows.len() == posts as usize));
        }
    }
}
