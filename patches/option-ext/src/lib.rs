//! The one method of `option-ext` that `dirs-sys` calls, written anew: the original is
//! under the MPL-2.0, and every dependency of pinpipe is to have a permissive licence.

/// What `dirs-sys` asks of an `Option`.
pub trait OptionExt<T> {
    /// Whether there is a value and it equals `x`.
    fn contains<U: PartialEq<T>>(&self, x: &U) -> bool;
}

impl<T> OptionExt<T> for Option<T> {
    fn contains<U: PartialEq<T>>(&self, x: &U) -> bool {
        self.as_ref().is_some_and(|value| x == value)
    }
}
