//! Pure. Fields below fields: `Flatten`, `ExtractField` along a path, Debezium's `HeaderToValue`.

use super::smt::{Refused, fill, structure};
use super::{Data, Field, HeaderValue, Kind, Part, Record, Schema};
use std::sync::Arc;

/// `field.syntax.version` = V2: steps with points between, each perhaps in backticks, where `\`` is one. V1 is one step.
pub fn steps(path: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = path;
    loop {
        let Some(quoted) = rest.strip_prefix('`') else {
            match rest.split_once('.') {
                Some((step, more)) => {
                    out.push(step.to_owned());
                    rest = more;
                    continue;
                }
                None => {
                    out.push(rest.to_owned());
                    return Ok(out);
                }
            }
        };
        let mut step = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            let (at, c) = chars.next().ok_or("a backtick is open at the end")?;
            match c {
                '\\' if quoted[at + 1..].starts_with('`') => {
                    step.push('`');
                    chars.next();
                }
                '`' if matches!(quoted[at + 1..].chars().next(), None | Some('.')) => break at + 1,
                c => step.push(c),
            }
        };
        out.push(step);
        match quoted[end..].strip_prefix('.') {
            Some(more) => rest = more,
            None => return Ok(out),
        }
    }
}

/// `ExtractField`.
pub(super) fn extract(part: Part, path: &[String], defaults: bool) -> Result<Part, Refused> {
    let Some((mut schema, mut data)) = part else { return Ok(None) };
    for (i, step) in path.iter().enumerate() {
        let at = schema.place(step).ok_or_else(|| format!("there is no field {}", path.join(".")))?;
        let of = schema.fields[at].schema.clone();
        data = match data {
            Data::Null => Data::Null,
            data => {
                let mut values = structure(&schema, data)?;
                fill(&schema, &mut values, defaults && i + 1 == path.len());
                values.into_iter().nth(at).unwrap_or(Data::Null)
            }
        };
        schema = of;
    }
    Ok(Some((schema, data)))
}

/// The fields of a structure without structures, named by the way to them.
pub(super) fn flat_fields(
    schema: &Schema,
    prefix: &str,
    delimiter: &str,
    optional: bool,
    out: &mut Vec<Field>,
) -> Result<(), Refused> {
    for f in &schema.fields {
        let name = if prefix.is_empty() { f.name.clone() } else { format!("{prefix}{delimiter}{}", f.name) };
        let optional = optional || f.schema.optional;
        match f.schema.kind {
            Kind::Struct => flat_fields(&f.schema, &name, delimiter, optional, out)?,
            Kind::Map => return Err(no_map(&name)),
            kind => {
                let mut made = f.schema.basics(kind);
                (made.optional, made.default, made.items) =
                    (optional, f.schema.default.clone(), f.schema.items.clone());
                out.push(Field { name, schema: Arc::new(made) });
            }
        }
    }
    Ok(())
}

/// Their values; none = the structure they are in is null.
pub(super) fn flat_values(schema: &Schema, data: Option<&Data>, out: &mut Vec<Data>) -> Result<(), Refused> {
    let values = match data {
        Some(Data::Struct(values)) => Some(values),
        Some(Data::Null) | None => None,
        Some(_) => return Err(format!("the value is a {}, and a structure is wanted", schema.kind.name())),
    };
    for (at, f) in schema.fields.iter().enumerate() {
        let value = values.and_then(|v| v.get(at));
        match f.schema.kind {
            Kind::Struct => flat_values(&f.schema, value, out)?,
            Kind::Map => return Err(no_map(&f.name)),
            _ => out.push(match (value, &f.schema.default) {
                (Some(Data::Null), Some(default)) => default.clone(),
                (value, _) => value.cloned().unwrap_or(Data::Null),
            }),
        }
    }
    Ok(())
}

fn no_map(field: &str) -> Refused {
    format!("field {field} is a map, which cannot be made flat")
}

/// `HeaderToValue`: each header in the order in which the record has them.
pub(super) fn header_to_value(mut record: Record, fields: &[(String, String)], moves: bool) -> Result<Record, Refused> {
    let Some((schema, data)) = record.value.clone().filter(|(_, data)| *data != Data::Null) else {
        return Ok(record);
    };
    let mut entries: Vec<(&str, Arc<Schema>, Data)> = Vec::new();
    for header in &record.headers {
        let Some((_, field)) = fields.iter().find(|(name, _)| *name == header.name) else { continue };
        let (schema, data) = match &header.value {
            HeaderValue::Data(schema, data) => (schema.clone(), data.clone()),
            HeaderValue::Written(Some(text)) => {
                (Schema::optional(Kind::String, true), Data::Text(String::from_utf8_lossy(text).into_owned()))
            }
            HeaderValue::Written(None) => (Schema::optional(Kind::String, true), Data::Null),
        };
        entries.push((field, schema, data));
    }
    if entries.is_empty() {
        return Ok(record);
    }
    record.value = Some(added(&schema, data, &entries)?);
    if moves {
        record.headers.retain(|h| !fields.iter().any(|(name, _)| *name == h.name));
    }
    Ok(record)
}

type Entry<'e> = (&'e str, Arc<Schema>, Data);

fn added(schema: &Schema, data: Data, entries: &[Entry<'_>]) -> Result<(Arc<Schema>, Data), Refused> {
    let mut values = structure(schema, data)?;
    fill(schema, &mut values, true);
    let mut made = schema.basics(Kind::Struct);
    made.fields = schema.fields.clone();
    for (name, schema, data) in entries {
        match made.place(name) {
            Some(at) => values[at] = data.clone(),
            None => {
                made.fields.push(Field { name: (*name).to_owned(), schema: schema.clone() });
                values.push(data.clone());
            }
        }
    }
    Ok((Arc::new(made), Data::Struct(values)))
}
