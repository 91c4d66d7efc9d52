//! Pure. `column.truncate.to.N.chars` as Debezium means it: of a column that may be longer than N, whatever of its values is
//! a text or bytes in the record is cut, also dates and numbers that a mode makes texts. (`TruncateColumn`.)
//!
//! Texts of the source are cut before they come here (`catchwater-capture`, shape).

use super::{Road, bare, is_known};
use crate::encode::debezium_json::Encoder;
use crate::encode::debezium_json::value::put_value as put_shown;
use crate::encode::form::{BinaryMode, DecimalMode};
use crate::json;
use crate::schema::{Column, TableSchema, Type};
use crate::value::Value;
use std::sync::{Arc, PoisonError};

/// What a column's schema calls its N.
const PARAMETER: &str = "truncateLength";

/// By the column's place: how many units of its values stay. Empty = all of all.
pub(in super::super) type Cuts = Vec<Option<usize>>;

/// Where the snapshot's columns have no length, none is cut: a `numeric` that says nothing of its digits.
pub(in super::super) fn is_cut(column: &Column, road: Road) -> bool {
    let loose = matches!(column.kind, Type::Decimal { precision: 0, .. }) && bare(&column.native_type) == "numeric";
    !(loose && road == Road::Jdbc)
}

/// The parameters of a column's schema on that road.
pub(in super::super) fn parameters(of: &mut Vec<(String, String)>, column: &Column, road: Road) {
    if !is_cut(column, road) {
        of.retain(|(name, _)| name != PARAMETER);
    }
}

impl Encoder {
    /// `None` = nothing is cut in this source.
    pub(in super::super) fn cuts(&self, table: &TableSchema) -> Option<Arc<Cuts>> {
        let of = self.options.parameters.0.as_ref().filter(|_| self.options.defects)?;
        let make = || {
            let all: Cuts = table
                .columns
                .iter()
                .map(|c| of(table, c).into_iter().find(|(name, _)| name == PARAMETER)?.1.parse().ok())
                .collect();
            Arc::new(if all.iter().any(Option::is_some) { all } else { Cuts::new() })
        };
        if table.schema_no == 0 {
            return Some(make());
        }
        let mut known = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.entry(table.schema_no).or_insert_with(make).clone())
    }

    /// Writes a value of which something is cut. False = nothing is, and nothing was written.
    pub(in super::super) fn put_cut(
        &self,
        out: &mut Vec<u8>,
        cuts: Option<&Cuts>,
        at: usize,
        column: &Column,
        value: &Value,
        road: Road,
    ) -> bool {
        let most = cuts.and_then(|cuts| cuts.get(at).copied().flatten());
        let Some(most) = most.filter(|_| is_cut(column, road)) else { return false };
        let from = out.len();
        if !super::put_value(out, &self.options, column, value, road) {
            put_shown(out, &self.options.form, column, value);
        }
        let whole = out.split_off(from);
        let Ok(json::Node::String(text)) = json::parse(&whole) else { return false };
        let unknown = column.kind == Type::Other && !is_known(&column.native_type);
        match &column.kind {
            Type::Float { .. } | Type::Bits { .. } => false,
            Type::Decimal { .. } if self.options.form.decimal != DecimalMode::String => false,
            kind if (*kind == Type::Bytes || unknown) && self.options.form.binary == BinaryMode::Bytes => {
                let Some(bytes) = json::from_base64(&text).filter(|b| b.len() > most) else { return false };
                json::put_base64(out, &bytes[..most]);
                true
            }
            _ => match cut_units(&text, most) {
                short if short.len() == text.len() => false,
                short => {
                    json::put_string(out, short);
                    true
                }
            },
        }
    }
}

/// The characters that so many UTF-16 code units, Java's, hold.
pub fn cut_units(text: &str, most: usize) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > most
    });
    end.map_or(text, |(at, _)| &text[..at])
}
