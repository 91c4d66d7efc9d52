//! Pure. Source schema + target table + policy → the DDL to run, or why not.
//!
//! Policy `additive` (default): a missing table is created, a missing column added as nullable with what the source's old rows
//! have in it ([`Column::missing`]), a target column that the source does not have (any more) loses its NOT NULL and is kept. Nothing is dropped, renamed or narrowed: a type that
//! does not fit stops the sink with its name and a person decides.

use crate::plan::shown;
use crate::sink::{DdlStep, TargetName, TargetTable, Types};
use catchwater_change::{Column, TableSchema, Type};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnSchemaChange {
    #[default]
    Additive,
    /// Any difference stops the sink.
    Fail,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvolveError {
    #[error("column {column} of {target} is {have}, the source has {want}")]
    Type { target: String, column: String, have: String, want: String },
    #[error("{target} differs from the source and the policy is fail: {what}")]
    Refused { target: String, what: String },
}

/// Steps that make `name` take rows of `source`; none = it does already.
pub fn steps(
    source: &Arc<TableSchema>,
    name: &TargetName,
    target: Option<&TargetTable>,
    policy: OnSchemaChange,
    types: &Types,
) -> Result<Vec<DdlStep>, EvolveError> {
    let refused = |what: String| EvolveError::Refused { target: shown(name), what };
    let Some(target) = target else {
        return match policy {
            OnSchemaChange::Additive => {
                Ok(vec![DdlStep::CreateTable { name: name.clone(), like: source.clone(), types: types.clone() }])
            }
            OnSchemaChange::Fail => Err(refused("the table is missing".into())),
        };
    };
    let mut missing = Vec::new();
    for column in source.columns.iter().filter(|c| !c.generated) {
        match target.columns.iter().find(|c| c.name == column.name) {
            // A type that somebody gave may not take what the source's does.
            None => missing.push(Column {
                nullable: Some(true),
                default: String::new(),
                missing: column.missing.clone().filter(|_| !types.contains_key(&column.name)),
                ..column.clone()
            }),
            // Who gives a type has looked at it; the target has the last word on each value.
            Some(have) if !types.contains_key(&column.name) && !fits(&column.kind, &have.kind) => {
                return Err(EvolveError::Type {
                    target: shown(name),
                    column: column.name.clone(),
                    have: have.native_type.clone(),
                    want: column.native_type.clone(),
                });
            }
            Some(_) => {}
        }
    }
    let mut out = Vec::new();
    if !missing.is_empty() {
        if policy == OnSchemaChange::Fail {
            let names: Vec<&str> = missing.iter().map(|c| c.name.as_str()).collect();
            return Err(refused(format!("column {} is missing", names.join(", "))));
        }
        out.push(DdlStep::AddColumns { name: name.clone(), columns: missing, types: types.clone() });
    }
    for column in &target.columns {
        let filled = column.generated || column.identity || !column.default.is_empty();
        let known = source.columns.iter().any(|c| c.name == column.name && !c.generated);
        if !known && !filled && column.nullable == Some(false) && !target.key.contains(&column.name) {
            if policy == OnSchemaChange::Fail {
                return Err(refused(format!("column {} is not in the source", column.name)));
            }
            out.push(DdlStep::DropNotNull { name: name.clone(), column: column.name.clone() });
        }
    }
    Ok(out)
}

/// Can a column of type `have` hold what `want` carries? Clear misfits only: text and types without a kind of their own
/// take anything that prints, and the target has the last word on each value.
fn fits(want: &Type, have: &Type) -> bool {
    match (want, have) {
        (_, Type::Text { .. } | Type::Other | Type::Json { .. }) => true,
        // A signed value into an unsigned column does not fit, however wide; an unsigned one needs a bit more.
        (Type::Int { unsigned: false, .. }, Type::Int { unsigned: true, .. }) => false,
        (Type::Int { bits: w, unsigned: wu }, Type::Int { bits: h, unsigned: hu }) => w + u32::from(*wu && !hu) <= *h,
        (Type::Int { .. }, Type::Decimal { .. }) => true,
        (Type::Bool, Type::Bool | Type::Int { .. } | Type::Decimal { .. }) => true,
        (Type::Int { bits, .. }, Type::Float { bits: h }) => *bits <= 32 && *h == 64 || *bits <= 16,
        (Type::Float { bits: w }, Type::Float { bits: h }) => w <= h,
        (Type::Float { .. }, Type::Decimal { precision: 0, .. }) => true,
        (Type::Decimal { precision: w, scale: ws }, Type::Decimal { precision: h, scale: hs }) => {
            *h == 0
                || (*w != 0
                    && w.saturating_sub((*ws).max(0) as u32) <= h.saturating_sub((*hs).max(0) as u32)
                    && ws <= hs)
        }
        (Type::Text { .. } | Type::Other, _) => matches!(
            have,
            Type::Enum { .. }
                | Type::Uuid
                | Type::Xml
                | Type::Array { .. }
                | Type::Interval
                | Type::Bits { .. }
                | Type::Bytes
        ),
        (Type::Bytes, Type::Bytes) => true,
        (Type::Date, Type::Date | Type::Timestamp { .. }) => true,
        (Type::Time { zone: w, .. }, Type::Time { zone: h, .. }) => w == h,
        (Type::Timestamp { .. }, Type::Timestamp { .. }) | (Type::Instant { .. }, Type::Instant { .. }) => true,
        (Type::Interval, Type::Interval) | (Type::Uuid, Type::Uuid) | (Type::Xml, Type::Xml) => true,
        (Type::Enum { .. }, Type::Enum { .. }) => true,
        (Type::Array { element: w }, Type::Array { element: h }) => fits(w, h),
        (Type::Bits { .. }, Type::Bits { .. }) => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::table;

    const I32: Type = Type::Int { bits: 32, unsigned: false };
    const I64: Type = Type::Int { bits: 64, unsigned: false };
    const TEXT: Type = Type::Text { length: 0 };

    fn name() -> TargetName {
        TargetName { schema: "public".into(), name: "t".into() }
    }
    fn target(like: &TableSchema) -> TargetTable {
        TargetTable {
            name: name(),
            columns: like.columns.clone(),
            key: like.key.iter().map(|k| like.columns[usize::from(*k)].name.clone()).collect(),
            unique: vec![],
            foreign_keys: vec![],
            opaque: false,
        }
    }

    #[test]
    fn additive_creates_adds_and_relaxes() {
        let v1 = table("public", "t", &[("id", I64), ("a", I32), ("old", TEXT)], &["id"]);
        assert_eq!(
            steps(&v1, &name(), None, OnSchemaChange::Additive, &Types::new()).unwrap(),
            vec![DdlStep::CreateTable { name: name(), like: v1.clone(), types: Types::new() }]
        );
        assert_eq!(steps(&v1, &name(), Some(&target(&v1)), OnSchemaChange::Additive, &Types::new()).unwrap(), vec![]);
        let mut at = target(&v1);
        at.columns[2].nullable = Some(false);
        let v2 = table("public", "t", &[("id", I64), ("a", I32), ("b", TEXT)], &["id"]);
        let did = steps(&v2, &name(), Some(&at), OnSchemaChange::Additive, &Types::new()).unwrap();
        assert!(matches!(&did[..], [DdlStep::AddColumns { columns, .. }, DdlStep::DropNotNull { column, .. }]
            if columns[0].name == "b" && columns[0].nullable == Some(true) && column == "old"));
        assert!(steps(&v2, &name(), Some(&at), OnSchemaChange::Fail, &Types::new()).is_err());
        assert!(steps(&v2, &name(), None, OnSchemaChange::Fail, &Types::new()).is_err());
    }

    #[test]
    fn a_changed_type_stops_with_both_names() {
        let v1 = table("public", "t", &[("id", I64), ("a", I32)], &["id"]);
        let v2 = table("public", "t", &[("id", I64), ("a", TEXT)], &["id"]);
        assert!(matches!(
            steps(&v2, &name(), Some(&target(&v1)), OnSchemaChange::Additive, &Types::new()),
            Err(EvolveError::Type { column, .. }) if column == "a"
        ));
        // The other way round text takes it.
        assert!(steps(&v1, &name(), Some(&target(&v2)), OnSchemaChange::Additive, &Types::new()).is_ok());
    }

    #[test]
    fn what_fits() {
        let dec = |precision, scale| Type::Decimal { precision, scale };
        for (want, have, yes) in [
            (I32, I64, true),
            (I64, I32, false),
            (Type::Int { bits: 32, unsigned: true }, I32, false),
            (Type::Int { bits: 32, unsigned: true }, I64, true),
            (I64, Type::Int { bits: 64, unsigned: true }, false),
            (I64, dec(0, 0), true),
            (dec(10, 2), dec(12, 2), true),
            (dec(10, 2), dec(10, 4), false),
            (dec(0, 0), dec(12, 2), false),
            (Type::Bool, I64, true),
            (I64, Type::Bool, false),
            (Type::Float { bits: 64 }, Type::Float { bits: 32 }, false),
            (Type::Bytes, I64, false),
            (Type::Uuid, TEXT, true),
            (Type::Instant { digits: 6 }, Type::Timestamp { digits: 6 }, false),
        ] {
            assert_eq!(fits(&want, &have), yes, "{want:?} into {have:?}");
        }
    }
}
