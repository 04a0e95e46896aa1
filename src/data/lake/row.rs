//! Decodes one JSON record: converts each value to the type of its column and appends it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Builder, Int64Builder, StringBuilder};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base::model::{Column, ColumnType, Kind};

/// Maximum number of columns of a kind.
const MAX_COLUMNS: usize = {
    let (mut kind, mut max) = (0, 0);
    while kind < Kind::ALL.len() {
        let columns = Kind::ALL[kind].columns().len();
        max = if columns > max { columns } else { max };
        kind += 1;
    }
    max
};

/// A value of a record, before conversion.
#[derive(Debug, Clone, Default, PartialEq)]
enum Value<'a> {
    /// Absent or null.
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// An object or an array.
    Nested,
}

/// Values of a record in the order of the columns. Filled in place: moving the array cost a tenth
/// of the decoding time.
type Values<'a> = [Value<'a>; MAX_COLUMNS];

/// Decodes a record and appends each value to its column.
///
/// # Errors
/// The reason of the reject: broken JSON, no row number, or a value of the wrong type. The columns
/// are then unchanged.
pub fn append(kind: Kind, json: &str, builders: &mut [ColumnBuilder]) -> Result<(), String> {
    let mut values: Values<'_> = Default::default();
    read(kind, json, &mut values)?;
    for (builder, value) in builders.iter_mut().zip(&values) {
        match (builder, value) {
            (ColumnBuilder::Text(builder), Value::Text(text)) => builder.append_value(text),
            (ColumnBuilder::Text(builder), _) => builder.append_null(),
            (ColumnBuilder::Integer(builder), Value::Integer(number)) => {
                builder.append_value(*number)
            }
            (ColumnBuilder::Integer(builder), _) => builder.append_null(),
            (ColumnBuilder::Float(builder), Value::Float(number)) => builder.append_value(*number),
            (ColumnBuilder::Float(builder), _) => builder.append_null(),
        }
    }
    Ok(())
}

/// Reads a record into `values` and converts each to the type of its column.
fn read<'a>(kind: Kind, json: &'a str, values: &mut Values<'a>) -> Result<(), String> {
    let columns = kind.columns();
    let mut reader = serde_json::Deserializer::from_str(json);
    if let Err(error) =
        (RowVisitor { columns, values }).deserialize(&mut reader).and_then(|()| reader.end())
    {
        return Err(if error.is_data() {
            "not a JSON object".into()
        } else {
            format!("broken JSON: {error}")
        });
    }
    if values[0] == Value::Missing {
        return Err(format!("no row number `{}`", columns[0].0));
    }
    for (value, (name, column_type)) in values.iter_mut().zip(columns) {
        if !coerce(value, *column_type) {
            return Err(format!("`{name}` does not fit its column"));
        }
    }
    Ok(())
}

/// Converts a value to the type of its column. Returns `false` if that is not possible.
#[inline]
fn coerce(value: &mut Value<'_>, column_type: ColumnType) -> bool {
    match (&*value, column_type) {
        (Value::Missing, _) => true,
        (Value::Nested, _) => false,
        // Clean tables store 32-bit integers.
        (Value::Integer(number), ColumnType::Integer) => i32::try_from(*number).is_ok(),
        (Value::Text(text), ColumnType::Integer) => match text.parse::<i32>() {
            Ok(number) => {
                *value = Value::Integer(number.into());
                true
            }
            Err(_) => false,
        },
        (Value::Float(_), ColumnType::Float) => true,
        (Value::Integer(number), ColumnType::Float) => {
            *value = Value::Float(*number as f64);
            true
        }
        (Value::Text(text), ColumnType::Float) => match text.parse() {
            Ok(number) => {
                *value = Value::Float(number);
                true
            }
            Err(_) => false,
        },
        (Value::Text(text), ColumnType::DateTime) => is_time(text),
        (Value::Text(_), ColumnType::Text) => true,
        (Value::Integer(number), ColumnType::Text) => {
            *value = Value::Text(number.to_string().into());
            true
        }
        (Value::Float(number), ColumnType::Text) => {
            *value = Value::Text(number.to_string().into());
            true
        }
        (Value::Boolean(flag), ColumnType::Text) => {
            *value = Value::Text(flag.to_string().into());
            true
        }
        _ => false,
    }
}

/// Whether the text is a time such as `2022-05-27 11:30:59`, optionally with a `T` or a fraction.
fn is_time(text: &str) -> bool {
    const PATTERN: &[u8; 19] = b"0000-00-00 00:00:00";
    let matches_pattern = text.len() >= PATTERN.len()
        && text.bytes().zip(PATTERN).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            b' ' => byte == b' ' || byte == b'T',
            expected => byte == *expected,
        });
    let fraction = text.as_bytes().get(PATTERN.len()..).unwrap_or_default();
    if !matches_pattern
        || !matches!(fraction, [] | [b'.', b'0'..=b'9', ..])
        || !fraction.iter().skip(1).all(u8::is_ascii_digit)
    {
        return false;
    }
    let number = |from: usize| text[from..from + 2].parse::<u32>().unwrap_or(u32::MAX);
    let is_day = match number(8) {
        // Every month has these days.
        1..=28 => (1..=12).contains(&number(5)),
        day => text[..4]
            .parse()
            .is_ok_and(|year| chrono::NaiveDate::from_ymd_opt(year, number(5), day).is_some()),
    };
    is_day && number(11) < 24 && number(14) < 60 && number(17) < 60
}

// The small functions below are marked for inlining, because generic code of another crate calls
// them for each value. This saves a tenth of the decoding time.

/// Stores each value of a JSON object at the position of its column.
struct RowVisitor<'v, 'a> {
    columns: &'static [Column],
    values: &'v mut Values<'a>,
}

impl<'de> DeserializeSeed<'de> for RowVisitor<'_, 'de> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(column) = map.next_key_seed(Name { columns: self.columns, expected })? {
            match column {
                Some(column) => {
                    self.values[column] = map.next_value_seed(AnyValue)?;
                    expected = column + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the position of a column by name. Tries the next column first, because most records have
/// the order of the columns.
struct Name {
    columns: &'static [Column],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        if self.columns.get(self.expected).is_some_and(|column| column.0 == name) {
            return Ok(Some(self.expected));
        }
        Ok(self.columns.iter().position(|column| column.0 == name))
    }
}

/// Deserializes a value of any type.
struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value<'de>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    #[inline]
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    #[inline]
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_string())))
    }

    #[inline]
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }

    #[inline]
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Integer))
    }

    #[inline]
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Value::Boolean(flag))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }
}

/// Builder of a raw column.
pub enum ColumnBuilder {
    Integer(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
}

impl ColumnBuilder {
    /// Creates a builder with capacity for `rows` rows.
    pub fn new(column_type: ColumnType, rows: usize) -> Self {
        match column_type {
            ColumnType::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            ColumnType::Float => Self::Float(Float64Builder::with_capacity(rows)),
            ColumnType::Text | ColumnType::DateTime => {
                Self::Text(StringBuilder::with_capacity(rows, 0))
            }
        }
    }

    /// Returns the column and resets the builder with the same capacity.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Integer(builder) => {
                let column = builder.finish();
                *builder = Int64Builder::with_capacity(column.len());
                Arc::new(column)
            }
            Self::Float(builder) => {
                let column = builder.finish();
                *builder = Float64Builder::with_capacity(column.len());
                Arc::new(column)
            }
            Self::Text(builder) => {
                let column = builder.finish();
                *builder = StringBuilder::with_capacity(column.len(), column.value_data().len());
                Arc::new(column)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_times_in_the_two_formats_that_cleaning_reads() {
        for time in [
            "2022-05-27 11:30:59",
            "2022-05-27T11:30:59",
            "2020-02-29 00:00:00",
            "2022-12-31 23:59:59.123456",
        ] {
            assert!(is_time(time), "`{time}`");
        }
        for other in [
            "",
            "2022-05-27",
            "2019-5-7 1:02:03",
            " 2019-05-27 11:30:59",
            "2019-05-27 11:30:59 ",
            "2019-02-29 00:00:00",
            "2022-13-01 00:00:00",
            "2022-05-27 24:00:00",
            "2022-05-27 11:30:59.",
            "2022-05-27 11:30:59Z",
            "２022-05-27 11:30:5",
        ] {
            assert!(!is_time(other), "`{other}`");
        }
    }

    #[test]
    fn converts_values_to_the_types_of_their_columns() {
        let record = r#"{"category":"a\u00e9","index":"7","title":5,"description":true,"extra":{"a":[1]},"downloaded":1}"#;
        let mut values = Values::default();
        read(Kind::Pin, record, &mut values).expect("valid record");
        assert_eq!(values[0], Value::Integer(7));
        assert_eq!(values[2], Value::Text("5".into()));
        assert_eq!(values[3], Value::Text("true".into()));
        assert_eq!(values[11], Value::Text("aé".into()));
        for (record, reason) in [
            (r#"{"index":1,"title":[1]}"#, "`title`"),
            (r#"{"index":1.5}"#, "`index`"),
            ("[1]", "not a JSON object"),
            (r#"{"index":1} x"#, "broken JSON"),
        ] {
            assert!(
                read(Kind::Pin, record, &mut Values::default())
                    .is_err_and(|error| error.contains(reason)),
                "{record}"
            );
        }
    }
}
