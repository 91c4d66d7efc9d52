//! Pure. `column.truncate.to.N.chars` as Debezium means it: of a column that may be longer than N, whatever of its values is
//! a text or bytes in the record is cut, also dates and numbers that a mode makes texts. (`TruncateColumn`.)
//!
//! Texts of the source are cut before they come here (`catchwater-capture`, shape).

use super::{Road, bare, is_known};
use crate::encode::debezium_json::value::put_value as put_shown;
use crate::encode::debezium_json::{Encoder, Mask, nothing};
use crate::encode::form::{BinaryMode, DecimalMode};
use crate::exact::Exact;
use crate::json;
use crate::row::Cell;
use crate::schema::{Column, TableSchema, Type};
use crate::value::Value;
use std::sync::{Arc, PoisonError};

/// What a column's schema calls its N.
const PARAMETER: &str = "truncateLength";
/// What the schema says of the column at the source.
const LENGTH: &str = "__debezium.source.column.length";
const SCALE: &str = "__debezium.source.column.scale";

/// What the rules do to a shape's values; empty = nothing.
#[derive(Default)]
pub(in super::super) struct Cuts {
    /// By the column's place: how many units of its values stay.
    most: Vec<Option<usize>>,
    masks: Vec<Option<Mask>>,
}

impl Cuts {
    fn most(&self, at: usize, column: &Column, road: Road) -> Option<usize> {
        self.most.get(at).copied().flatten().filter(|_| is_cut(column, road))
    }
}

impl std::fmt::Debug for Cuts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuts({:?}, {} masks)", self.most, self.masks.iter().flatten().count())
    }
}

/// A cell that was written.
#[derive(Clone, Copy)]
pub(in super::super) struct Spot<'a> {
    pub table: &'a TableSchema,
    pub at: usize,
    pub cell: &'a Cell,
    pub road: Road,
}

/// Where the snapshot's columns have no length, none is cut: a `numeric` that says nothing of its digits.
pub(in super::super) fn is_cut(column: &Column, road: Road) -> bool {
    let loose = matches!(column.kind, Type::Decimal { precision: 0, .. }) && bare(&column.native_type) == "numeric";
    !(loose && road == Road::Jdbc)
}

/// The parameters of a column's schema on that road.
pub(in super::super) fn parameters(of: &mut Vec<(String, String)>, column: &Column, road: Road) {
    if !is_cut(column, road) {
        of.retain(|(name, _)| name != PARAMETER && name != SCALE);
        of.iter_mut().filter(|(name, _)| name == LENGTH).for_each(|(_, value)| *value = "0".into());
    }
    let kind = match &column.kind {
        Type::Array { element } => element,
        kind => kind,
    };
    if let Some(wide) = super::wide_scale(kind) {
        of.iter_mut().filter(|(name, _)| name == SCALE).for_each(|(_, value)| *value = wide.to_string());
    }
}

impl Encoder {
    /// `None` = nothing is cut or masked in this source.
    pub(in super::super) fn cuts(&self, table: &TableSchema) -> Option<Arc<Cuts>> {
        let options = &self.options;
        if !options.defects || (options.parameters.0.is_none() && options.masks.0.is_none()) {
            return None;
        }
        let make = || {
            let cut = |c: &Column| {
                let said = options.parameters.0.as_ref()?(table, c);
                said.into_iter().find(|(name, _)| name == PARAMETER)?.1.parse().ok()
            };
            let most: Vec<Option<usize>> = table.columns.iter().map(cut).collect();
            let mask = |c: &Column| options.masks.0.as_ref()?(table, c);
            let masks: Vec<Option<Mask>> = table.columns.iter().map(mask).collect();
            Arc::new(Cuts {
                most: if most.iter().any(Option::is_some) { most } else { Vec::new() },
                masks: if masks.iter().any(Option::is_some) { masks } else { Vec::new() },
            })
        };
        if table.schema_no == 0 {
            return Some(make());
        }
        let mut known = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.entry(table.schema_no).or_insert_with(make).clone())
    }

    /// Of what was written from there on: cuts what stands for a value that was not sent, and masks that, too, and columns of
    /// the key, whose cells are whole for the key's sake. What a name's lost value is, the mask does not see either.
    /// `what` = what `cw.exact` would say of it; gives what it says now.
    pub(in super::super) fn hidden(
        &self,
        out: &mut Vec<u8>,
        from: usize,
        cuts: &Cuts,
        spot: Spot<'_>,
        what: Option<Exact>,
    ) -> Option<Exact> {
        let Spot { table, at, cell, road } = spot;
        let Some(column) = table.columns.get(at) else { return what };
        let is_sent = matches!(cell, Cell::Value(_) | Cell::Null);
        if let Some(most) = cuts.most(at, column, road).filter(|_| !is_sent) {
            self.cut_written(out, from, column, most);
        }
        let Some(mask) = cuts.masks.get(at).and_then(Option::as_ref) else { return what };
        let (is_lost, is_clear) = (super::is_lost(&self.options, column, road), super::is_key_there(table, at));
        if is_sent && !is_lost && !is_clear {
            return what;
        }
        // The converter's default for a null comes behind the mask.
        let mut shown = Vec::new();
        match cell {
            Cell::Null | Cell::Absent => nothing::put(&mut shown, &self.options, false, column),
            _ => shown.extend_from_slice(&out[from..]),
        }
        let text = match json::parse(&shown) {
            Ok(json::Node::String(text)) => Some(text.into_owned()),
            _ => None,
        };
        if let Some(masked) = mask(text.as_deref()) {
            out.truncate(from);
            json::put_string(out, &masked);
        }
        match cell {
            Cell::Value(Value::Text(real)) if is_clear && is_lost => mask(Some(real.as_str())).map(Exact::Text),
            Cell::Value(_) | Cell::Null if is_clear => None,
            _ => what,
        }
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
        let Some(most) = cuts.and_then(|cuts| cuts.most(at, column, road)) else { return false };
        let from = out.len();
        if !super::put_value(out, &self.options, column, value, road) {
            put_shown(out, &self.options.form, column, value);
        }
        let is_cut = self.cut_written(out, from, column, most);
        if !is_cut {
            out.truncate(from);
        }
        is_cut
    }

    /// Cuts what was written from there on; false = nothing is cut, and it stays.
    fn cut_written(&self, out: &mut Vec<u8>, from: usize, column: &Column, most: usize) -> bool {
        let whole = out[from..].to_vec();
        let Ok(json::Node::String(text)) = json::parse(&whole) else { return false };
        let unknown = column.kind == Type::Other && !is_known(&column.native_type);
        match &column.kind {
            Type::Float { .. } | Type::Bits { .. } => false,
            Type::Decimal { .. } if self.options.form.decimal != DecimalMode::String => false,
            kind if (*kind == Type::Bytes || unknown) && self.options.form.binary == BinaryMode::Bytes => {
                let Some(bytes) = json::from_base64(&text).filter(|b| b.len() > most) else { return false };
                out.truncate(from);
                json::put_base64(out, &bytes[..most]);
                true
            }
            _ => match cut_units(&text, most) {
                short if short.len() == text.len() => false,
                short => {
                    out.truncate(from);
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
