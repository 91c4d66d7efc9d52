//! Pure. What a source's rules say of columns, as functions that the encoder asks once for each shape of a table.

use crate::schema::{Column, TableSchema};
use std::sync::Arc;

/// A function of table and column; none = nothing. Two are equal if they are one.
pub struct Of<T>(pub Option<Arc<OfColumn<T>>>);

type OfColumn<T> = dyn Fn(&TableSchema, &Column) -> T + Send + Sync;

/// Names and values: parameters of a column's schema.
pub type Parameters = Of<Vec<(String, String)>>;

/// What stands instead of a text; `None` = NULL, on both sides.
pub type Mask = Arc<dyn Fn(Option<&str>) -> Option<String> + Send + Sync>;

/// The mask of a column's values that stands there whatever they are, or is a hash of them.
pub type Masks = Of<Option<Mask>>;

impl<T> Of<T> {
    pub fn new(say: impl Fn(&TableSchema, &Column) -> T + Send + Sync + 'static) -> Self {
        Of(Some(Arc::new(say)))
    }
}

impl<T> Clone for Of<T> {
    fn clone(&self) -> Self {
        Of(self.0.clone())
    }
}

impl<T> Default for Of<T> {
    fn default() -> Self {
        Of(None)
    }
}

impl<T> std::fmt::Debug for Of<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Of({})", if self.0.is_some() { "some" } else { "none" })
    }
}

impl<T> PartialEq for Of<T> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

impl<T> Eq for Of<T> {}
