//! Descriptions into Rust. The emitted code only calls `reader.rs` and `writer.rs`; every rule of bounds lives there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::describe::{Api, Body, Field, Range, Schema, Type};

const HEAD: &str = "// Written by `cargo xtask codegen` from protocol/messages; do not edit.\n";
const ALLOW: &str = "#![allow(unused_variables, unused_mut, clippy::all)]\n";

/// What a message is encoded at: its versions and the first flexible one.
#[derive(Clone, Copy)]
struct At {
    versions: Range,
    flex: Option<i16>,
}

pub fn api_index(apis: &[(String, Api)]) -> String {
    let mut out = String::from("//! Pure. One module per API, request and response.\n");
    out.push_str(HEAD);
    for (stem, _) in apis {
        let _ = writeln!(out, "pub mod {stem};");
    }
    out.push('\n');
    for (stem, api) in apis {
        let _ = writeln!(out, "pub use {stem}::{{{0}Request, {0}Response}};", api.name);
    }
    out.push_str(
        "\n/// Calls `$go! { Name Request Response; … }` with every described API: tests and dispatch tables are made from it.\n\
         #[macro_export]\nmacro_rules! each_api {\n    ($go:ident) => {\n        $go! {\n",
    );
    for (_, api) in apis {
        let _ = writeln!(out, "            {0} {0}Request {0}Response;", api.name);
    }
    out.push_str("        }\n    };\n}\n");
    out
}

pub fn record_index(records: &[(String, Vec<Schema>)]) -> String {
    let mut out = String::from("//! Pure. Record schemas of the coordinators, one module per description.\n");
    out.push_str(HEAD);
    for (stem, _) in records {
        let _ = writeln!(out, "pub mod {stem};");
    }
    out
}

pub fn api(api: &Api) -> Result<String> {
    let at = At { versions: api.versions, flex: api.flex };
    let mut out = format!("//! Pure. {} (key {}), versions {}.\n{HEAD}{ALLOW}", api.name, api.key, api.versions);
    out.push_str(USES);
    let (request, response) = (format!("{}Request", api.name), format!("{}Response", api.name));
    let mut seen = BTreeSet::new();
    body(&mut out, &request, &api.request, at, &mut seen)?;
    body(&mut out, &response, &api.response, at, &mut seen)?;
    let flex = option(api.flex);
    let _ = writeln!(
        out,
        "impl crate::Request for {request} {{\n    const KEY: i16 = {};\n    const NAME: &'static str = \"{}\";\n    \
         const MIN: i16 = {};\n    const MAX: i16 = {};\n    const FLEX: Option<i16> = {flex};\n    type Response = {response};\n}}",
        api.key, api.name, api.versions.min, api.versions.max
    );
    Ok(out)
}

pub fn records(stem: &str, schemas: &[Schema]) -> Result<String> {
    let mut out = format!("//! Pure. Record schemas `{stem}`.\n{HEAD}{ALLOW}");
    out.push_str(USES);
    let mut seen = BTreeSet::new();
    for schema in schemas {
        let at = At { versions: schema.versions, flex: schema.flex };
        body(&mut out, &schema.name, &schema.body, at, &mut seen)?;
        let _ = writeln!(
            out,
            "impl crate::schema::Schema for {} {{\n    const NAME: &'static str = \"{0}\";\n    const MIN: i16 = {};\n    \
             const MAX: i16 = {};\n    const FLEX: Option<i16> = {};\n    const ID: Option<i16> = {};\n}}",
            schema.name,
            schema.versions.min,
            schema.versions.max,
            option(schema.flex),
            option(schema.id)
        );
    }
    Ok(out)
}

const USES: &str = "\n#[allow(unused_imports)]\nuse bytes::Bytes;\n#[allow(unused_imports)]\nuse catchwater_record::TopicId;\n\n\
#[allow(unused_imports)]\nuse crate::reader::{DecodeError, Named, Reader};\n#[allow(unused_imports)]\nuse crate::text::Str;\n\
#[allow(unused_imports)]\nuse crate::writer::{Records, Writer, size};\n#[allow(unused_imports)]\nuse crate::{Message, Uuid};\n\n";

fn option(value: Option<i16>) -> String {
    value.map_or("None".to_owned(), |v| format!("Some({v})"))
}

fn body(out: &mut String, name: &str, body: &Body, at: At, seen: &mut BTreeSet<String>) -> Result<()> {
    let mut structs: BTreeMap<String, Vec<Field>> = body.structs.iter().cloned().collect();
    let mut order = vec![];
    collect(&body.fields, &mut structs, &mut order)?;
    for (common, fields) in &body.structs {
        order.push(common.clone());
        collect(&fields.clone(), &mut structs, &mut order)?;
    }
    structure(out, name, &body.fields, at)?;
    for inner in order {
        if !seen.insert(inner.clone()) {
            bail!("struct {inner} stands twice; rename one in the description");
        }
        structure(out, &inner, &structs[&inner], at)?;
    }
    Ok(())
}

fn collect(fields: &[Field], structs: &mut BTreeMap<String, Vec<Field>>, order: &mut Vec<String>) -> Result<()> {
    for field in fields {
        let Some(name) = struct_name(&field.ty) else {
            if !field.fields.is_empty() {
                bail!("{}: fields below a plain type", field.name);
            }
            continue;
        };
        if field.fields.is_empty() {
            if !structs.contains_key(name) {
                bail!("{}: struct {name} is not declared", field.name);
            }
            continue;
        }
        if structs.insert(name.to_owned(), field.fields.clone()).is_some() {
            bail!("struct {name} is declared twice");
        }
        order.push(name.to_owned());
        collect(&field.fields, structs, order)?;
    }
    Ok(())
}

fn struct_name(ty: &Type) -> Option<&str> {
    match ty {
        Type::Plain(_) => None,
        Type::Struct(name) => Some(name),
        Type::Array(inner) => struct_name(inner),
    }
}

/// `Some(condition)` in `v`, an empty string for "always", `None` for "never".
fn when(range: Range, within: Range) -> Option<String> {
    if !range.meets(within) {
        return None;
    }
    Some(match (range.min > within.min, range.max < within.max) {
        (false, false) => String::new(),
        (true, false) => format!("v >= {}", range.min),
        (false, true) => format!("v <= {}", range.max),
        (true, true) if range.min == range.max => format!("v == {}", range.min),
        (true, true) => format!("({}..={}).contains(&v)", range.min, range.max),
    })
}

/// A condition as an expression of type bool.
fn truth(condition: Option<String>) -> String {
    match condition {
        None => "false".into(),
        Some(text) if text.is_empty() => "true".into(),
        Some(text) => text,
    }
}

fn rust_name(name: &str) -> String {
    match name {
        "type" | "match" | "ref" | "move" | "self" | "use" | "where" | "loop" | "in" | "for" | "fn" => {
            format!("r#{name}")
        }
        _ => name.to_owned(),
    }
}

fn is_topic_id(field: &Field) -> bool {
    field.name.ends_with("topic_id") || field.name.ends_with("topic_ids")
}

fn rust_type(field: &Field, ty: &Type) -> String {
    match ty {
        Type::Plain(p) => match p.as_str() {
            "string" => "Str".into(),
            "bytes" => "Bytes".into(),
            "records" => "Records".into(),
            "uuid" if is_topic_id(field) => "TopicId".into(),
            "uuid" => "Uuid".into(),
            other => other.to_owned(),
        },
        Type::Struct(name) => name.clone(),
        Type::Array(inner) => format!("Vec<{}>", rust_type(field, inner)),
    }
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Plain(p) if p.starts_with(['i', 'u', 'f']) && p != "uuid")
}

fn is_plain(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Plain(p) if p == name)
}

fn fixed(ty: &Type) -> Option<usize> {
    let Type::Plain(p) = ty else { return None };
    Some(match p.as_str() {
        "bool" | "i8" | "u8" => 1,
        "i16" | "u16" => 2,
        "i32" | "u32" => 4,
        "i64" | "u64" | "f64" => 8,
        "uuid" => 16,
        _ => return None,
    })
}

fn default_of(field: &Field) -> Result<String> {
    let null = field.default.as_deref() == Some("null");
    if field.null.is_some() {
        if null || matches!(field.ty, Type::Struct(_)) {
            return Ok("None".into());
        }
        return Ok(format!("Some({})", default_plain(field)?));
    }
    if null {
        bail!("{}: default null, but never nullable", field.name);
    }
    default_plain(field)
}

fn default_plain(field: &Field) -> Result<String> {
    Ok(match (&field.ty, &field.default) {
        (Type::Array(_), None) => "Vec::new()".into(),
        (Type::Struct(name), None) => format!("{name}::default()"),
        (Type::Plain(p), default) => match (p.as_str(), default) {
            ("string", None) => "Str::default()".into(),
            ("string", Some(text)) => format!("Str::from_static({text:?})"),
            ("bytes", None) => "Bytes::new()".into(),
            ("records", None) => "Records::default()".into(),
            ("uuid", None) => "Default::default()".into(),
            ("bool", None) => "false".into(),
            ("f64", None) => "0.0".into(),
            (_, None) => "0".into(),
            (_, Some(text)) => text.clone(),
        },
        (_, Some(text)) => bail!("{}: default {text:?} of a struct or array", field.name),
    })
}

/// Whether the field differs from its default.
fn is_set(field: &Field) -> Result<String> {
    let it = format!("self.{}", rust_name(&field.name));
    if field.null.is_some() {
        return Ok(if field.default.as_deref() == Some("null") || matches!(field.ty, Type::Struct(_)) {
            format!("{it}.is_some()")
        } else {
            format!("{it}.as_ref().is_none_or(|x| !x.is_empty())")
        });
    }
    Ok(match &field.ty {
        Type::Array(_) => format!("!{it}.is_empty()"),
        Type::Plain(p) if matches!(p.as_str(), "string" | "bytes" | "records") && field.default.is_none() => {
            format!("!{it}.is_empty()")
        }
        Type::Plain(p) if p == "bool" => match field.default.as_deref() {
            Some("true") => format!("!{it}"),
            _ => it,
        },
        Type::Plain(p) if p == "uuid" => format!("{it} != {}::default()", rust_type(field, &field.ty)),
        _ => format!("{it} != {}", default_plain(field)?),
    })
}

fn structure(out: &mut String, name: &str, fields: &[Field], at: At) -> Result<()> {
    let (mut head, mut default) = (String::new(), String::new());
    let (mut min, mut decode, mut size, mut encode) = (String::new(), String::new(), String::new(), String::new());
    let (mut tag_decode, mut tag_count, mut tag_size, mut tag_encode) =
        (String::new(), String::new(), String::new(), String::new());
    let mut equal_only = false;
    let mut tagged: Vec<&Field> = fields.iter().filter(|f| f.tag.is_some()).collect();
    tagged.sort_by_key(|f| f.tag.map(|t| t.0));
    for field in fields {
        let ty = rust_type(field, &field.ty);
        let ty = if field.null.is_some() { format!("Option<{ty}>") } else { ty };
        equal_only |= ty.contains("f64");
        let it = rust_name(&field.name);
        let _ = writeln!(head, "    pub {it}: {ty},");
        let _ = writeln!(default, "            {it}: {},", default_of(field)?);
        let label = format!("\"{name}.{}\"", field.name);
        let plain = plain_versions(field);
        let condition = plain.and_then(|r| when(r, at.versions));
        let flex = if field.flex_none { "false" } else { "flex" };
        let nullable = nullable_text(field, at);
        if let Some(condition) = condition.clone() {
            let open = if condition.is_empty() { String::new() } else { format!("if {condition} {{ ") };
            let close = if condition.is_empty() { "" } else { " }" };
            let _ = writeln!(min, "        {open}n += {};{close}", min_of(field, flex));
            let _ = writeln!(
                decode,
                "        {open}m.{it} = {}.named({label})?;{close}",
                decode_of(field, flex, &nullable)
            );
            let _ = writeln!(size, "        {open}n += {};{close}", size_of(field, flex, &nullable));
            let refuse = if field.ignorable || field.tag.is_some() || condition.is_empty() {
                String::new()
            } else {
                format!(" else if {} {{ w.refuse({label}); }}", is_set(field)?)
            };
            let _ = writeln!(encode, "        {open}{};{close}{refuse}", encode_of(field, flex, &nullable, &label));
        } else if field.tag.is_none() && !field.ignorable {
            let _ = writeln!(encode, "        if {} {{ w.refuse({label}); }}", is_set(field)?);
        }
    }
    for field in &tagged {
        let Some((tag, range)) = field.tag else { continue };
        let Some(condition) = when(range, at.versions) else { continue };
        let guard = if condition.is_empty() { String::new() } else { format!("{condition} && ") };
        let nullable = nullable_text(field, at);
        let label = format!("\"{name}.{}\"", field.name);
        let it = rust_name(&field.name);
        let set = format!("{guard}{}", is_set(field)?);
        let if_guard = if condition.is_empty() { String::new() } else { format!(" if {condition}") };
        let _ = writeln!(
            tag_decode,
            "                {tag}{if_guard} => {{ m.{it} = {}.named({label})?; Ok(true) }}",
            decode_of(field, "true", &nullable)
        );
        let _ = writeln!(tag_count, "            if {set} {{ tags += 1; }}");
        let _ = writeln!(
            tag_size,
            "            if {set} {{ tags += 1; n += size::tag({tag}, {}); }}",
            size_of(field, "true", &nullable)
        );
        let _ = writeln!(
            tag_encode,
            "            if {set} {{ w.tag({tag}, {}); {}; }}",
            size_of(field, "true", &nullable),
            encode_of(field, "true", &nullable, &label)
        );
        if !field.ignorable && !condition.is_empty() {
            let _ = writeln!(encode, "        if !({condition}) && {} {{ w.refuse({label}); }}", is_set(field)?);
        }
    }
    let flex = match at.flex {
        None => "false".to_owned(),
        Some(first) if first <= at.versions.min => "true".to_owned(),
        Some(first) => format!("v >= {first}"),
    };
    let eq = if equal_only { "" } else { ", Eq" };
    let _ = writeln!(out, "#[derive(Clone, Debug, PartialEq{eq})]\npub struct {name} {{\n{head}}}\n");
    let _ = writeln!(
        out,
        "impl Default for {name} {{\n    fn default() -> Self {{\n        {name} {{\n{default}        }}\n    }}\n}}\n"
    );
    let has_flex = at.flex.is_some();
    let bind = format!("        let flex = {flex};\n");
    let _ = writeln!(out, "impl Message for {name} {{");
    let _ = writeln!(
        out,
        "    fn min_size(v: i16) -> usize {{\n{bind}        let mut n = 0;\n{min}{}        n\n    }}",
        if has_flex { "        if flex { n += 1; }\n" } else { "" }
    );
    let tags_in = match (has_flex, tag_decode.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "        if flex { r.skip_tags()?; }\n".to_owned(),
        (true, false) => format!(
            "        if flex {{\n            r.tags(|r, tag| match tag {{\n{tag_decode}                _ => Ok(false),\n            }})?;\n        }}\n"
        ),
    };
    let _ = writeln!(
        out,
        "    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {{\n{bind}        let mut m = Self::default();\n{decode}{tags_in}        Ok(m)\n    }}"
    );
    let (tags_size, tags_out) = match (has_flex, tag_count.is_empty()) {
        (false, _) => (String::new(), String::new()),
        (true, true) => ("        if flex { n += 1; }\n".to_owned(), "        if flex { w.uvarint(0); }\n".to_owned()),
        (true, false) => (
            format!(
                "        if flex {{\n            let mut tags = 0;\n{tag_size}            n += size::uvarint(tags);\n        }}\n"
            ),
            format!(
                "        if flex {{\n            let mut tags = 0;\n{tag_count}            w.uvarint(tags);\n{tag_encode}        }}\n"
            ),
        ),
    };
    let _ = writeln!(
        out,
        "    fn size(&self, v: i16) -> usize {{\n{bind}        let mut n = 0;\n{size}{tags_size}        n\n    }}"
    );
    let _ = writeln!(out, "    fn encode(&self, w: &mut Writer, v: i16) {{\n{bind}{encode}{tags_out}    }}\n}}\n");
    Ok(())
}

/// Versions in which the field stands in its place (not among the tags).
fn plain_versions(field: &Field) -> Option<Range> {
    match field.tag {
        None => Some(field.versions),
        Some((_, tagged)) if tagged.min > field.versions.min => {
            Some(Range { min: field.versions.min, max: tagged.min - 1 })
        }
        Some(_) => None,
    }
}

fn nullable_text(field: &Field, at: At) -> String {
    truth(field.null.and_then(|n| when(n, at.versions)))
}

fn min_of(field: &Field, flex: &str) -> String {
    if let Some(n) = fixed(&field.ty) {
        return n.to_string();
    }
    match &field.ty {
        Type::Plain(p) if p == "string" => format!("size::min_string({flex})"),
        Type::Struct(_) if field.null.is_some() => "1".into(),
        Type::Struct(name) => format!("{name}::min_size(v)"),
        _ => format!("size::min_bytes({flex})"),
    }
}

fn decode_of(field: &Field, flex: &str, nullable: &str) -> String {
    let opt = if field.null.is_some() { "_opt" } else { "" };
    let null = if field.null.is_some() { format!(", {nullable}") } else { String::new() };
    match &field.ty {
        Type::Plain(p) => match p.as_str() {
            "string" | "bytes" | "records" => format!("r.{p}{opt}({flex}{null})"),
            "uuid" if is_topic_id(field) => "r.topic_id()".into(),
            other => format!("r.{other}()"),
        },
        Type::Struct(name) if field.null.is_some() => format!("r.struct_opt::<{name}>(v, {nullable})"),
        Type::Struct(name) => format!("{name}::decode(r, v)"),
        Type::Array(inner) => {
            let (min, read) = match &**inner {
                Type::Plain(p) if p == "string" => (format!("size::min_string({flex})"), format!("r.string({flex})")),
                Type::Plain(p) if p == "bytes" => (format!("size::min_bytes({flex})"), format!("r.bytes({flex})")),
                Type::Plain(p) if p == "uuid" && is_topic_id(field) => ("16".into(), "r.topic_id()".into()),
                Type::Plain(p) => (fixed(inner).unwrap_or(1).to_string(), format!("r.{p}()")),
                Type::Struct(name) => (format!("{name}::min_size(v)"), format!("{name}::decode(r, v)")),
                Type::Array(_) => ("1".into(), "Err(DecodeError::new(crate::reader::Kind::Count))".into()),
            };
            format!("r.array{opt}({flex}{null}, {min}, |r| {read})")
        }
    }
}

fn size_of(field: &Field, flex: &str, _nullable: &str) -> String {
    let it = format!("self.{}", rust_name(&field.name));
    if let Some(n) = fixed(&field.ty) {
        return n.to_string();
    }
    let opt = if field.null.is_some() { "_opt" } else { "" };
    match &field.ty {
        Type::Plain(p) => format!("size::{p}{opt}(&{it}, {flex})"),
        Type::Struct(_) if field.null.is_some() => format!("1 + {it}.as_ref().map_or(0, |x| x.size(v))"),
        Type::Struct(_) => format!("{it}.size(v)"),
        Type::Array(inner) => {
            let each = match (&**inner, fixed(inner)) {
                (_, Some(n)) => format!("|_| {n}"),
                (Type::Plain(p), _) => format!("|x| size::{p}(x, {flex})"),
                _ => "|x| x.size(v)".into(),
            };
            format!("size::array{opt}(&{it}, {flex}, {each})")
        }
    }
}

fn encode_of(field: &Field, flex: &str, nullable: &str, label: &str) -> String {
    let it = format!("self.{}", rust_name(&field.name));
    let by = if is_number(&field.ty) || is_plain(&field.ty, "bool") { "" } else { "&" };
    let opt = if field.null.is_some() { "_opt" } else { "" };
    let null = if field.null.is_some() { format!(", {nullable}") } else { String::new() };
    match &field.ty {
        Type::Plain(p) => match p.as_str() {
            "string" | "bytes" | "records" => format!("w.{p}{opt}(&{it}, {flex}{null}, {label})"),
            "uuid" if is_topic_id(field) => format!("w.uuid(&{it}.0)"),
            other => format!("w.{other}({by}{it})"),
        },
        Type::Struct(_) if field.null.is_some() => format!("w.struct_opt(&{it}, v, {nullable}, {label})"),
        Type::Struct(_) => format!("{it}.encode(w, v)"),
        Type::Array(inner) => {
            let each = match &**inner {
                Type::Plain(p) if p == "string" || p == "bytes" => format!("|w, x| w.{p}(x, {flex}, {label})"),
                Type::Plain(p) if p == "uuid" && is_topic_id(field) => "|w, x| w.uuid(&x.0)".into(),
                Type::Plain(p) if p == "uuid" => "|w, x| w.uuid(x)".into(),
                Type::Plain(p) => format!("|w, x| w.{p}(*x)"),
                _ => "|w, x| x.encode(w, v)".into(),
            };
            format!("w.array{opt}(&{it}, {flex}{null}, {label}, {each})")
        }
    }
}
