//! Decodes one JSON record: converts each value to the type of its column and appends it.
//!
//! [`try_append`] is fast and decodes nearly all records. The others have a value whose JSON text
//! has to be kept, such as `1.10` in a text column: [`append`] reads the JSON text of each value.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::base::model::{Column, ColumnType, Kind};
use crate::data::lake::value::{parse_integer, parse_number, parse_time, whole_number};

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

/// A value of a record.
#[derive(Debug, Clone, Default, PartialEq)]
enum Value<'a> {
    /// Absent or null.
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Microseconds since the epoch, in UTC. Only after conversion.
    Time(i64),
    /// An object or an array.
    Nested,
}

/// Values of a record in the order of the columns. Filled in place: moving the array cost a tenth
/// of the decoding time.
type Values<'a> = [Value<'a>; MAX_COLUMNS];

/// Result of [`try_append`].
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    Appended,
    /// Reason for the rejection.
    Rejected(String),
    /// Not one JSON object, or one with a value whose JSON text has to be kept.
    Unclear,
}

/// Why values cannot be converted.
struct Unfit {
    reason: String,
    /// The value is a number or an object in a text column, and its JSON text was not read.
    requires_text: bool,
}

/// Whether a value fits its column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// Only its JSON text fits.
    RequiresText,
}

/// Decodes a usual record and appends each value to its column. Unless it succeeds, the columns are
/// unchanged.
pub fn try_append(kind: Kind, json: &str, builders: &mut [ColumnBuilder]) -> Attempt {
    let mut values: Values<'_> = Default::default();
    let columns = kind.columns();
    let mut reader = serde_json::Deserializer::from_str(json);
    let row = RowVisitor { columns, values: &mut values, value: AnyValue };
    if row.deserialize(&mut reader).and_then(|()| reader.end()).is_err() {
        return Attempt::Unclear;
    }
    match convert(kind, &mut values) {
        Ok(()) => {
            append_values(&values, builders);
            Attempt::Appended
        }
        Err(unfit) if unfit.requires_text => Attempt::Unclear,
        Err(unfit) => Attempt::Rejected(unfit.reason),
    }
}

/// Decodes any record and appends each value to its column.
///
/// # Errors
/// The reason for the rejection: broken JSON, no row number, or a value of the wrong type. The
/// columns are then unchanged.
pub fn append(kind: Kind, json: &str, builders: &mut [ColumnBuilder]) -> Result<(), String> {
    let json = replace_lone_surrogates(json);
    let mut values: Values<'_> = Default::default();
    read_texts(kind, &json, &mut values).map_err(|error| {
        if error.is_data() { "not a JSON object".into() } else { format!("broken JSON: {error}") }
    })?;
    convert(kind, &mut values).map_err(|unfit| unfit.reason)?;
    append_values(&values, builders);
    Ok(())
}

fn append_values(values: &Values<'_>, builders: &mut [ColumnBuilder]) {
    for (builder, value) in builders.iter_mut().zip(values) {
        match (builder, value) {
            (ColumnBuilder::Text(builder), Value::Text(text)) => builder.append_value(text),
            (ColumnBuilder::Text(builder), _) => builder.append_null(),
            (ColumnBuilder::Integer(builder), Value::Integer(number)) => {
                builder.append_value(*number)
            }
            (ColumnBuilder::Integer(builder), _) => builder.append_null(),
            (ColumnBuilder::Float(builder), Value::Float(number)) => builder.append_value(*number),
            (ColumnBuilder::Float(builder), _) => builder.append_null(),
            (ColumnBuilder::Time(builder), Value::Time(time_us)) => builder.append_value(*time_us),
            (ColumnBuilder::Time(builder), _) => builder.append_null(),
        }
    }
}

/// Reads a record into `values`, with the JSON text of each value in a text column.
fn read_texts<'a>(
    kind: Kind,
    json: &'a str,
    values: &mut Values<'a>,
) -> Result<(), serde_json::Error> {
    let columns = kind.columns();
    let mut texts: [Option<&'a RawValue>; MAX_COLUMNS] = [None; MAX_COLUMNS];
    let mut reader = serde_json::Deserializer::from_str(json);
    let row = RowVisitor { columns, values: &mut texts, value: PhantomData };
    row.deserialize(&mut reader).and_then(|()| reader.end())?;
    for ((value, text), (_, column_type)) in values.iter_mut().zip(texts).zip(columns) {
        if let Some(text) = text {
            *value = value_of(text.get(), *column_type)?;
        }
    }
    Ok(())
}

/// Reads a JSON value that is not null.
fn value_of(json: &str, column_type: ColumnType) -> Result<Value<'_>, serde_json::Error> {
    Ok(match (json.as_bytes().first(), column_type) {
        (Some(b'"'), _) => Value::Text(serde_json::from_str::<String>(json)?.into()),
        (Some(b't' | b'f'), _) => Value::Boolean(json == "true"),
        (Some(b'{' | b'['), ColumnType::Text) => Value::Text(compact(json)?.into()),
        (Some(b'{' | b'['), _) => Value::Nested,
        (_, ColumnType::Text) => Value::Text(json.into()),
        _ => match (json.parse::<i64>(), json.parse::<f64>()) {
            (Ok(number), _) => Value::Integer(number),
            (Err(_), Ok(number)) => Value::Float(number),
            (Err(_), Err(_)) => Value::Nested,
        },
    })
}

/// Converts each value to the type of its column.
#[inline]
fn convert(kind: Kind, values: &mut Values<'_>) -> Result<(), Unfit> {
    let columns = kind.columns();
    if values[0] == Value::Missing {
        let reason = format!("no row number `{}`", columns[0].0);
        return Err(Unfit { reason, requires_text: false });
    }
    for (value, (name, column_type)) in values.iter_mut().zip(columns) {
        let fit = coerce(value, *column_type);
        match fit {
            Fit::Yes => {}
            // The value of a column that no table has cannot reject the record.
            Fit::No if !kind.is_cleaned(name) => *value = Value::Missing,
            Fit::No | Fit::RequiresText => {
                let reason = format!("`{name}` does not fit its column");
                return Err(Unfit { reason, requires_text: fit == Fit::RequiresText });
            }
        }
    }
    Ok(())
}

/// Converts a value to the type of its column, if it fits.
#[inline]
fn coerce(value: &mut Value<'_>, column_type: ColumnType) -> Fit {
    let converted = match (&*value, column_type) {
        (Value::Missing, _) | (Value::Text(_), ColumnType::Text) => return Fit::Yes,
        // Clean tables store 32-bit integers.
        (Value::Integer(number), ColumnType::Integer) if i32::try_from(*number).is_ok() => {
            return Fit::Yes;
        }
        (Value::Float(number), ColumnType::Float) if number.is_finite() => return Fit::Yes,
        (Value::Float(number), ColumnType::Integer) => whole_number(*number).map(Value::Integer),
        (Value::Text(text), ColumnType::Integer) => parse_integer(text).map(Value::Integer),
        (Value::Integer(number), ColumnType::Float) => Some(Value::Float(*number as f64)),
        (Value::Text(text), ColumnType::Float) => parse_number(text).map(Value::Float),
        (Value::Text(text), ColumnType::DateTime) => parse_time(text).map(Value::Time),
        (Value::Integer(number), ColumnType::Text) => Some(Value::Text(number.to_string().into())),
        (Value::Boolean(flag), ColumnType::Text) => Some(Value::Text(flag.to_string().into())),
        (Value::Float(_) | Value::Nested, ColumnType::Text) => return Fit::RequiresText,
        _ => None,
    };
    match converted {
        Some(converted) => {
            *value = converted;
            Fit::Yes
        }
        None => Fit::No,
    }
}

/// Replaces the escape of a lone surrogate with that of U+FFFD, which has the same length.
fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let unit = |at: usize| u16::from_str_radix(json.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok();
    let (mut replaced, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(length) = json.as_bytes().get(at..).and_then(|rest| memchr::memchr(b'\\', rest))
    {
        at += length;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                replaced.push_str(&json[copied..at]);
                replaced.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            _ => 2,
        };
    }
    if copied == 0 {
        return json.into();
    }
    replaced.push_str(&json[copied..]);
    replaced.into()
}

/// Returns a JSON text without white space between tokens, and with strings in their shortest form.
fn compact(json: &str) -> Result<String, serde_json::Error> {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = memchr::memchr(b'"', rest.as_bytes()) {
        text.extend(rest[..start].split_ascii_whitespace());
        let mut end = start + 1;
        while let Some(length) = memchr::memchr2(b'"', b'\\', &rest.as_bytes()[end..]) {
            end += length + 1;
            if rest.as_bytes()[end - 1] == b'"' {
                break;
            }
            // Skips the escaped character.
            end += 1;
        }
        let string = &rest[start..end];
        if string.contains('\\') {
            text.push_str(&serde_json::to_string(&serde_json::from_str::<String>(string)?)?);
        } else {
            text.push_str(string);
        }
        rest = &rest[end..];
    }
    text.extend(rest.split_ascii_whitespace());
    Ok(text)
}

// The small functions below are marked for inlining, because generic code of another crate calls
// them for each value. This saves a tenth of the decoding time.

/// Stores each value of a JSON object, as the seed `value` reads it, at the position of its column.
struct RowVisitor<'v, V, S> {
    columns: &'static [Column],
    values: &'v mut [V; MAX_COLUMNS],
    value: S,
}

impl<'de, V, S: DeserializeSeed<'de, Value = V> + Copy> DeserializeSeed<'de>
    for RowVisitor<'_, V, S>
{
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, V, S: DeserializeSeed<'de, Value = V> + Copy> Visitor<'de> for RowVisitor<'_, V, S> {
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
                    self.values[column] = map.next_value_seed(self.value)?;
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
/// their values in the order of the columns.
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
#[derive(Clone, Copy)]
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
    Time(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    /// Creates a builder with capacity for `rows` rows.
    pub fn new(column_type: ColumnType, rows: usize) -> Self {
        match column_type {
            ColumnType::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            ColumnType::Float => Self::Float(Float64Builder::with_capacity(rows)),
            ColumnType::Text => Self::Text(StringBuilder::with_capacity(rows, 0)),
            ColumnType::DateTime => Self::Time(TimestampMicrosecondBuilder::with_capacity(rows)),
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
            Self::Time(builder) => {
                let column = builder.finish();
                *builder = TimestampMicrosecondBuilder::with_capacity(column.len());
                Arc::new(column)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of a record as [`try_append`] reads them, or as [`append`] does.
    fn values(kind: Kind, json: &str, with_texts: bool) -> Vec<Value<'_>> {
        let mut values: Values<'_> = Default::default();
        if with_texts {
            read_texts(kind, json, &mut values).expect("valid JSON");
        } else {
            let columns = kind.columns();
            let row = RowVisitor { columns, values: &mut values, value: AnyValue };
            row.deserialize(&mut serde_json::Deserializer::from_str(json)).expect("valid JSON");
        }
        assert!(convert(kind, &mut values).is_ok(), "{json}");
        values.into()
    }

    fn reason(kind: Kind, json: &str) -> String {
        let mut builders: Vec<ColumnBuilder> = kind
            .columns()
            .iter()
            .map(|(_, column_type)| ColumnBuilder::new(*column_type, 0))
            .collect();
        let attempt = try_append(kind, json, &mut builders);
        let reason = append(kind, json, &mut builders).expect_err("a reject");
        if attempt != Attempt::Unclear {
            assert_eq!(attempt, Attempt::Rejected(reason.clone()), "{json}");
        }
        assert!(builders.iter_mut().all(|builder| builder.finish().is_empty()), "{json}");
        reason
    }

    #[test]
    fn converts_values_to_the_types_of_their_columns() {
        let record = r#"{"category":"a\u00e9","index":"7","title":5,"description":true,"extra":{"a":[1]},"downloaded":1}"#;
        for with_texts in [false, true] {
            let found = values(Kind::Pin, record, with_texts);
            assert_eq!(found[0], Value::Integer(7));
            assert_eq!(found[2], Value::Text("5".into()));
            assert_eq!(found[3], Value::Text("true".into()));
            assert_eq!(found[9], Value::Integer(1));
            assert_eq!(found[11], Value::Text("aé".into()));
        }
        let record = r#"{"ind":3.0,"latitude":1,"longitude":"-2.5e0","timestamp":"1970-01-01"}"#;
        for with_texts in [false, true] {
            let found = values(Kind::Geo, record, with_texts);
            assert_eq!(found[0], Value::Integer(3));
            assert_eq!(found[1], Value::Time(0));
            assert_eq!((&found[2], &found[3]), (&Value::Float(1.0), &Value::Float(-2.5)));
        }
    }

    #[test]
    fn rejects_with_the_reason() {
        for (record, expected) in [
            (r#"{"index":1.5}"#, "`index` does not fit its column"),
            (r#"{"index":3000000000}"#, "`index` does not fit its column"),
            (r#"{"index":1e400}"#, "`index` does not fit its column"),
            (r#"{"index":null,"title":1.5}"#, "no row number `index`"),
            ("[1]", "not a JSON object"),
            ("7", "not a JSON object"),
            (r#"{"index":1} x"#, "broken JSON: "),
            (r#"{"index":1,"title":NaN}"#, "broken JSON: "),
            (r#"{'index':1}"#, "broken JSON: "),
            (r#"{"index":01}"#, "broken JSON: "),
            ("{\"index\":1,\"title\":\"\t\"}", "broken JSON: "),
        ] {
            let found = reason(Kind::Pin, record);
            assert!(found.starts_with(expected), "{record}: {found}");
        }
        for record in [
            r#"{"ind":1,"latitude":1e400}"#,
            r#"{"ind":1,"latitude":"NaN"}"#,
            r#"{"ind":1,"latitude":"1.5d"}"#,
            r#"{"ind":1,"latitude":""}"#,
            r#"{"ind":1,"latitude":[1]}"#,
            r#"{"ind":1,"latitude":true}"#,
        ] {
            assert_eq!(reason(Kind::Geo, record), "`latitude` does not fit its column", "{record}");
        }
        assert_eq!(
            reason(Kind::Geo, r#"{"ind":1,"timestamp":1588327200}"#),
            "`timestamp` does not fit its column"
        );
    }

    #[test]
    fn a_number_in_a_text_column_keeps_its_text() {
        for number in ["18446744073709551615", "1.10", "1e20", "-0", "1E400", "46000.0", "7"] {
            let record = format!(r#"{{"index":1,"unique_id": {number} }}"#);
            assert_eq!(values(Kind::Pin, &record, true)[1], Value::Text(number.into()));
        }
        let mut builders: Vec<ColumnBuilder> = Kind::Pin
            .columns()
            .iter()
            .map(|(_, column_type)| ColumnBuilder::new(*column_type, 0))
            .collect();
        let record = r#"{"index":1,"title":1.50}"#;
        assert_eq!(try_append(Kind::Pin, record, &mut builders), Attempt::Unclear);
    }

    #[test]
    fn an_object_or_array_in_a_text_column_is_its_json_text() {
        for (json, text) in [
            (r#"[ "a" , "b c" ]"#, r#"["a","b c"]"#),
            ("{\n \"en\": \"x\", \"n\": 1.10, \"z\": null }", r#"{"en":"x","n":1.10,"z":null}"#),
            (
                r#"{"a":"\u00e9\/\"\u001f\ud83d\ude00","a":[]}"#,
                "{\"a\":\"é/\\\"\\u001f\u{1f600}\",\"a\":[]}",
            ),
            (r#"{"a":"\\"}"#, r#"{"a":"\\"}"#),
        ] {
            let record = format!(r#"{{"index":1,"tag_list":{json}}}"#);
            assert_eq!(values(Kind::Pin, &record, true)[6], Value::Text(text.into()));
        }
    }

    #[test]
    fn a_column_that_no_table_has_decides_nothing() {
        for downloaded in ["true", "1.5", "\"\"", "[1]", "1e400", "99999999999", "null"] {
            let record = format!(r#"{{"index":1,"downloaded":{downloaded},"category":"art"}}"#);
            let found = values(Kind::Pin, &record, true);
            assert_eq!((&found[9], &found[11]), (&Value::Missing, &Value::Text("art".into())));
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        for (json, replaced) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""a\ud83d\ud83d\ude00b\udE00é""#, r#""a\ufffd\ud83d\ude00b\ufffdé""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\n\ud83d\n""#, r#""\n\ufffd\n""#),
            (r#""\"#, r#""\"#),
        ] {
            assert_eq!(replace_lone_surrogates(json), replaced);
        }
    }
}
