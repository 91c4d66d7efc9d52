//! Kafka's own definitions (`*Request.json`, `*Response.json`, comments allowed) read as descriptions, to compare.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::describe::{self, Api, Body, Field, File, LATEST, Range, parse_type};

/// Prints every difference between the descriptions and the definitions, and fails if there is one.
/// With `write`, the descriptions of `keys` are made anew first (their version range is kept when they exist).
pub fn compare(folder: &Path, messages: &Path, write: bool, keys: &[i16]) -> Result<()> {
    let facts = read_all(folder)?;
    if write {
        for key in keys {
            let mut api = facts.get(key).with_context(|| format!("no api {key} in {}", folder.display()))?.clone();
            let path = messages.join(format!("{key:03}_{}.msg", snake(&api.name)));
            if path.exists()
                && let File::Api(old) = describe::parse(&path)?
            {
                api.versions = old.versions;
                clip(&mut api);
            }
            std::fs::write(&path, print(&api))?;
        }
    }
    let mut different = 0;
    for path in super::msg_files(messages)? {
        let File::Api(ours) = describe::parse(&path)? else { continue };
        let Some(mut theirs) = facts.get(&ours.key).cloned() else {
            bail!("{}: no such api in {}", path.display(), folder.display());
        };
        if theirs.versions != ours.versions {
            println!("{}: we describe {}, Kafka's file says {}", ours.name, ours.versions, theirs.versions);
            theirs.versions = ours.versions;
            clip(&mut theirs);
        }
        let (ours, theirs) = (print(&ours), print(&theirs));
        for (a, b) in ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b) {
            println!("{}\n  ours   {a}\n  theirs {b}", path.display());
            different += 1;
        }
        different += ours.lines().count().abs_diff(theirs.lines().count());
    }
    if different > 0 {
        bail!("{different} lines differ");
    }
    println!("descriptions equal {}", folder.display());
    Ok(())
}

fn print(api: &Api) -> String {
    let flex = api.flex.map_or("-".to_owned(), |f| f.to_string());
    let mut out = format!("api {} {} {} flex {flex}\nrequest\n", api.key, api.name, api.versions);
    describe::print_body(&api.request, &mut out);
    out.push_str("response\n");
    describe::print_body(&api.response, &mut out);
    out
}

fn read_all(folder: &Path) -> Result<BTreeMap<i16, Api>> {
    let mut found: BTreeMap<i16, Api> = BTreeMap::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let text = std::fs::read_to_string(path)?;
        let plain: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let json: Value = serde_json::from_str(&plain).with_context(|| path.display().to_string())?;
        let direction = json["type"].as_str().unwrap_or("");
        let (Some(key), true) = (json["apiKey"].as_i64(), matches!(direction, "request" | "response")) else {
            continue;
        };
        let key = i16::try_from(key)?;
        let mut versions = range(&json["validVersions"])?;
        if json["latestVersionUnstable"].as_bool() == Some(true) {
            versions.max -= 1;
        }
        let name = json["name"].as_str().context("name")?;
        let name = name.strip_suffix("Request").or(name.strip_suffix("Response")).unwrap_or(name);
        let flex = match json["flexibleVersions"].as_str() {
            None | Some("none") => None,
            Some(text) => Some(Range::parse(text)?.min),
        };
        let body = body(&json)?;
        let api = found.entry(key).or_insert_with(|| Api {
            key,
            name: name.to_owned(),
            versions,
            flex,
            request: Body::default(),
            response: Body::default(),
        });
        if direction == "request" {
            // A response is never marked unstable alone; the request decides.
            api.versions = versions;
            api.request = body;
        } else {
            api.response = body;
        }
    }
    for api in found.values_mut() {
        clip(api);
    }
    Ok(found)
}

/// Fields outside the described versions are left out.
fn clip(api: &mut Api) {
    fn walk(fields: &mut Vec<Field>, within: Range) {
        fields.retain(|f| f.versions.meets(within));
        for field in fields {
            walk(&mut field.fields, within);
        }
    }
    let within = api.versions;
    for body in [&mut api.request, &mut api.response] {
        walk(&mut body.fields, within);
        for (_, fields) in &mut body.structs {
            walk(fields, within);
        }
    }
}

fn body(json: &Value) -> Result<Body> {
    let mut structs = Vec::new();
    for common in json["commonStructs"].as_array().map(Vec::as_slice).unwrap_or_default() {
        structs.push((common["name"].as_str().context("struct name")?.to_owned(), fields(&common["fields"])?));
    }
    Ok(Body { structs, fields: fields(&json["fields"])? })
}

fn fields(json: &Value) -> Result<Vec<Field>> {
    json.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(field).collect()
}

fn field(json: &Value) -> Result<Field> {
    let name = json["name"].as_str().context("field name")?;
    let at = || name.to_owned();
    let ty = json["type"].as_str().with_context(at)?;
    let (array, element) = match ty.strip_prefix("[]") {
        Some(element) => ("[]", element),
        None => ("", ty),
    };
    let element = match element {
        "int8" => "i8",
        "int16" => "i16",
        "int32" => "i32",
        "int64" => "i64",
        "uint16" => "u16",
        "uint32" => "u32",
        "float64" => "f64",
        other => other,
    };
    let default = match &json["default"] {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.trim().to_owned()),
        other => Some(other.to_string()),
    };
    let default = default.map(|d| match d.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).map_or(d.clone(), |n| n.to_string()),
        None => d,
    });
    // What is a type's own default anyway is not written down.
    let default = default.filter(|d| d != "0" && d != "false");
    let tag = match json["tag"].as_u64() {
        Some(tag) => Some((u32::try_from(tag)?, range(&json["taggedVersions"])?)),
        None => None,
    };
    let null = match json["nullableVersions"].as_str() {
        None | Some("none") => None,
        Some(text) => Some(Range::parse(text)?),
    };
    Ok(Field {
        name: snake(name),
        ty: parse_type(&format!("{array}{element}")),
        versions: range(&json["versions"]).with_context(at)?,
        null,
        tag,
        default,
        ignorable: json["ignorable"].as_bool() == Some(true),
        key: json["mapKey"].as_bool() == Some(true),
        flex_none: json["flexibleVersions"].as_str() == Some("none"),
        fields: fields(&json["fields"])?,
    })
}

fn range(json: &Value) -> Result<Range> {
    let text = json.as_str().context("versions")?;
    if text == "none" {
        return Ok(Range { min: LATEST, max: 0 });
    }
    Range::parse(text)
}

pub fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let before_lower = chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        let after_lower = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
        if c.is_uppercase() && i > 0 && (after_lower || (before_lower && chars[i - 1].is_uppercase())) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
