//! Row numbers to post, and their order.

use std::collections::VecDeque;
use std::str::FromStr;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// Row numbers of `--rows`, such as `7,19,30-40`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowList(pub Vec<i64>);

/// Maximum number of rows in one range of a list.
const MAX_RANGE_ROWS: i64 = 1_000_000;

impl FromStr for RowList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rows = Vec::new();
        for part in text.split(',').map(str::trim) {
            let invalid =
                || format!("expected a row number or a range such as 30-40, got `{part}`");
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (
                    first.trim().parse().map_err(|_| invalid())?,
                    last.trim().parse().map_err(|_| invalid())?,
                ),
                None => {
                    let number: i64 = part.parse().map_err(|_| invalid())?;
                    (number, number)
                }
            };
            if first > last || last - first >= MAX_RANGE_ROWS {
                return Err(invalid());
            }
            rows.extend(first..=last);
        }
        Ok(Self(rows))
    }
}

/// Iterator over row numbers in the order in which they are posted.
pub enum RowOrder {
    /// The rows of the user's list, once and in the order of the list.
    Given(VecDeque<i64>),
    /// All rows in random order. Each pass posts every row once; the rows are shuffled after each
    /// pass.
    Shuffled { all: Vec<i64>, next: usize, random: Box<ChaCha8Rng> },
}

impl RowOrder {
    pub fn given(rows: Vec<i64>) -> Self {
        Self::Given(rows.into())
    }

    /// Returns all rows in random order. Equal seeds give equal orders.
    pub fn shuffled(mut all: Vec<i64>, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        all.shuffle(&mut random);
        Self::Shuffled { all, next: 0, random: Box::new(random) }
    }
}

impl Iterator for RowOrder {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        match self {
            Self::Given(rows) => rows.pop_front(),
            Self::Shuffled { all, next, random } => {
                if *next == all.len() {
                    all.shuffle(random);
                    *next = 0;
                }
                *next += 1;
                all.get(*next - 1).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_row_numbers_and_ranges() {
        assert_eq!("7, 19,30-32".parse::<RowList>(), Ok(RowList(vec![7, 19, 30, 31, 32])));
        for invalid in ["", "x", "5-3", "1,,2", "0-99999999999"] {
            assert!(invalid.parse::<RowList>().is_err(), "`{invalid}` was accepted");
        }
    }

    #[test]
    fn posts_every_row_once_in_each_pass() {
        let mut order = RowOrder::shuffled((0..50).collect(), 1);
        for _ in 0..3 {
            let mut round: Vec<i64> = order.by_ref().take(50).collect();
            round.sort_unstable();
            assert_eq!(round, (0..50).collect::<Vec<_>>());
        }
        let first = |seed| RowOrder::shuffled((0..50).collect(), seed).take(10).collect::<Vec<_>>();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
        assert_eq!(RowOrder::shuffled(Vec::new(), 1).next(), None);
    }
}
