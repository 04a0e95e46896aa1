//! Outputs of resources in the state: ids, ARNs and addresses, each with its resource, field and
//! type.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A value that the state stores as text.
pub trait OutputValue: Sized {
    fn to_text(&self) -> String;

    /// `None` if the text is not a valid value.
    fn from_text(text: &str) -> Option<Self>;
}

impl OutputValue for String {
    fn to_text(&self) -> String {
        self.clone()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl OutputValue for i64 {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl OutputValue for bool {
    fn to_text(&self) -> String {
        if *self { "yes" } else { "no" }.into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text == "yes")
    }
}

/// A list of ids, separated by commas.
impl OutputValue for Vec<String> {
    fn to_text(&self) -> String {
        self.join(",")
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.split(',').filter(|id| !id.is_empty()).map(String::from).collect())
    }
}

/// One output of one resource.
#[derive(Debug, Clone)]
pub struct Output<T = String> {
    /// Key of the resource.
    pub key: Cow<'static, str>,
    pub field: Cow<'static, str>,
    value: PhantomData<fn() -> T>,
}

impl<T> Output<T> {
    pub const fn new(key: &'static str, field: &'static str) -> Self {
        Self { key: Cow::Borrowed(key), field: Cow::Borrowed(field), value: PhantomData }
    }

    /// An output whose resource or field is known only at run time.
    pub fn of(key: impl Into<Cow<'static, str>>, field: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), field: field.into(), value: PhantomData }
    }
}

/// Outputs of an observed resource. The caller of `observe` records them in the state.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ObservedOutputs {
    /// Name under which the resource exists; `None` if nothing is to be recorded.
    name: Option<String>,
    values: BTreeMap<String, String>,
}

impl ObservedOutputs {
    /// Sets the name under which the resource exists, so that the state gets an entry for it.
    pub fn found(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Sets an output of the observed resource.
    pub fn set<T: OutputValue>(&mut self, output: &Output<T>, value: impl Into<T>) -> &mut Self {
        self.values.insert(output.field.clone().into_owned(), value.into().to_text());
        self
    }

    /// Returns the name and values to record; `None` without a name.
    pub fn into_entry(self) -> Option<(String, BTreeMap<String, String>)> {
        Some((self.name?, self.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_kept<T: OutputValue + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(T::from_text(&value.to_text()), Some(value));
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        assert_kept(String::from("arn:aws:kafka:us-east-1:1:cluster/me"));
        assert_kept(7_i64);
        assert_kept(true);
        assert_kept(false);
        assert_kept(vec![String::from("subnet-1"), String::from("subnet-2")]);
        assert_kept(Vec::<String>::new());
        assert_eq!(i64::from_text(""), None);
    }

    #[test]
    fn an_observation_without_a_name_records_nothing() {
        let mut outputs = ObservedOutputs::default();
        outputs.set(&Output::<String>::new("cluster", "arn"), "arn:1");
        assert_eq!(outputs.into_entry(), None);
    }
}
