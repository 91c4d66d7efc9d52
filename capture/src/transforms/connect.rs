//! Pure. The options of Kafka Connect's transforms of single records, and of Debezium's that are like them, in their words.

use super::{Own, list};
use catchwater_change::connect::Kind;
use catchwater_change::connect::convert::{Rules, Which, Zones};
use catchwater_change::connect::described::Rest;
use catchwater_change::connect::geometry::Shape;
use catchwater_change::connect::moment::{Format, Precision, Target};
use catchwater_change::connect::paths;
use catchwater_change::connect::smt::{Insertion, Side, Smt};
use catchwater_change::connect::zone::Zone;
use std::collections::BTreeSet;
use std::sync::Arc;

const KAFKA: &str = "org.apache.kafka.connect.transforms.";
const DEFAULTS: &str = "replace.null.with.default";

/// Those with `$Key` and `$Value`, and those without.
const SIDED: [&str; 10] = [
    "Cast",
    "ExtractField",
    "Flatten",
    "HeaderFrom",
    "HoistField",
    "InsertField",
    "MaskField",
    "ReplaceField",
    "SetSchemaMetadata",
    "TimestampConverter",
];
const PLAIN: [&str; 11] = [
    "org.apache.kafka.connect.transforms.DropHeaders",
    "org.apache.kafka.connect.transforms.InsertHeader",
    "org.apache.kafka.connect.transforms.ValueToKey",
    "io.debezium.transforms.ExtractChangedRecordState",
    "io.debezium.transforms.ExtractSchemaToNewRecord",
    "io.debezium.transforms.GeometryFormatTransformer",
    "io.debezium.transforms.HeaderToValue",
    "io.debezium.transforms.SwapGeometryCoordinates",
    "io.debezium.transforms.TimezoneConverter",
    "io.debezium.transforms.VectorToJsonConverter",
    "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent",
];
const SCHEMA_CHANGES: &str = "io.debezium.transforms.SchemaChangeEventFilter";
const PARTITIONS: &str = "io.debezium.transforms.partitions.PartitionRouting";

/// All classes, as they are said to the user.
pub(super) fn served() -> String {
    let nothing = [SCHEMA_CHANGES, PARTITIONS];
    let sided = SIDED.iter().map(|name| format!("{KAFKA}{name}$Key and $Value"));
    sided.chain(PLAIN.iter().chain(&nothing).map(|name| (*name).to_owned())).collect::<Vec<_>>().join(", ")
}

/// Why a class that users of Debezium have is not served.
pub(super) fn refused(class: &str) -> Option<&'static str> {
    Some(match class {
        "org.apache.kafka.connect.transforms.TimestampRouter" => {
            "records of a source have no time when transforms see them, and Connect's task fails at the first"
        }
        "io.debezium.transforms.ContentBasedRouter" | "io.debezium.transforms.Filter" => {
            "it runs a script of the JVM; skipped.operations, column.exclude.list and a Filter with a predicate leave out, and a \
             sink's `where` chooses rows"
        }
        "io.debezium.transforms.EnforceRecordSize" => {
            "it cuts values by the room that a record takes in a JVM; column.truncate.to.N.chars cuts them by their length, and a \
             record may have 64 MiB here"
        }
        "io.debezium.transforms.openlineage.OpenLineage" => {
            "it is for openlineage.integration.enabled, which is not served, and fails without"
        }
        "io.debezium.transforms.tracing.ActivateTracingSpan" => "there is no OpenTelemetry here to hand a span to",
        "io.debezium.transforms.Neo4jCudConverter" => {
            "it makes Neo4j's events of rows, and there is no sink of those here"
        }
        "io.debezium.connector.postgresql.transforms.timescaledb.TimescaleDb" => {
            "it names the chunks of TimescaleDB by their hypertables, which is no extension that is known here"
        }
        "io.debezium.connector.jdbc.transforms.CollectionNameTransformation"
        | "io.debezium.connector.jdbc.transforms.FieldNameTransformation" => "it is for sinks alone",
        _ => return None,
    })
}

/// True for a class that changes nothing of what a source here writes.
pub(super) fn is_nothing(class: &str) -> bool {
    [SCHEMA_CHANGES, PARTITIONS].contains(&class)
}

/// The options of such a class.
pub(super) fn nothing(class: &str, own: &mut Own<'_>) {
    const KINDS: [&str; 5] = ["CREATE", "ALTER", "DROP", "TRUNCATE", "DATABASE"];
    match class {
        SCHEMA_CHANGES => {
            let kinds = own.names("schema.change.event.exclude.list");
            if kinds.iter().any(|kind| !KINDS.contains(&kind.as_str())) {
                own.wrong("schema.change.event.exclude.list", format!("of {}", KINDS.join(", ")));
            }
        }
        PARTITIONS => {
            own.names("partition.payload.fields");
            own.get("partition.hash.function");
            match own.required("partition.topic.num").trim().parse::<i32>() {
                Ok(1) => {}
                Ok(2..) => own.wrong(
                    "partition.topic.num",
                    "a table's topic has one partition here, so that its transactions stand in order: 1",
                ),
                _ => own.wrong("partition.topic.num", "a number from 1 on"),
            }
        }
        _ => {}
    }
}

/// `None` = the class is none of these; `Some(None)` = its options are wrong, and it is said.
pub(super) fn parse(class: &str, own: &mut Own<'_>) -> Option<Option<Smt>> {
    if let Some(name) = PLAIN.iter().find(|name| **name == class) {
        return Some(match name.rsplit('.').next().unwrap_or_default() {
            "DropHeaders" => Some(Smt::DropHeaders(names(own, "headers")?.into_iter().collect())),
            "InsertHeader" => insert_header(own),
            "ValueToKey" => {
                let fields = own.names("fields");
                let defaults = own.flag(DEFAULTS, true);
                (!fields.is_empty()).then_some(Smt::ValueToKey { fields, defaults })
            }
            "ExtractChangedRecordState" => {
                let mut name = |key| own.get(key).filter(|n| !n.trim().is_empty()).map(str::to_owned);
                Some(Smt::Changed { changed: name("header.changed.name"), unchanged: name("header.unchanged.name") })
            }
            "TimezoneConverter" => zones(own),
            "VectorToJsonConverter" => Some(Smt::VectorToJson),
            "SwapGeometryCoordinates" => swap(own),
            "GeometryFormatTransformer" => {
                let format = own.get("format").map_or("wkb", str::trim);
                if !["wkb", "ewkb"].iter().any(|f| f.eq_ignore_ascii_case(format)) {
                    own.wrong("format", "one of wkb, ewkb");
                }
                Some(Smt::Geometry(Shape::Plain))
            }
            "ExtractSchemaToNewRecord" => {
                // The names are legal in each.
                own.get("schema.name.adjustment.mode");
                Some(Smt::SourceSchema)
            }
            "DecodeLogicalDecodingMessageContent" => {
                let nulls = own.flag("fields.null.include", false);
                Some(Smt::DecodeMessage { nulls, rest: Rest::Envelope })
            }
            _ => {
                let headers = own.names("headers");
                let pairs = pairs(own, headers, "fields");
                if pairs.iter().any(|(_, field)| field.contains('.')) {
                    own.wrong("fields", "fields of the value itself: one below another field is not served");
                }
                let moves = moves(own);
                Some(Smt::HeaderToValue { fields: pairs, moves })
            }
        });
    }
    let (name, side) = class.strip_prefix(KAFKA)?.split_once('$')?;
    let side = match side {
        "Key" => Side::Key,
        "Value" => Side::Value,
        _ => return None,
    };
    SIDED.contains(&name).then(|| sided(name, side, own))
}

fn names(own: &mut Own<'_>, key: &'static str) -> Option<Vec<String>> {
    Some(own.names(key))
}

fn sided(name: &str, side: Side, own: &mut Own<'_>) -> Option<Smt> {
    let defaults = match name {
        "Flatten" | "HoistField" => true,
        _ => own.flag(DEFAULTS, true),
    };
    Some(match name {
        "InsertField" => insert_field(side, defaults, own)?,
        "ReplaceField" => {
            let mut set = |key| -> BTreeSet<String> { list(own.get(key).unwrap_or_default()).into_iter().collect() };
            let (exclude, include) = (set("exclude"), set("include"));
            let mut renames = std::collections::BTreeMap::new();
            for pair in list(own.get("renames").unwrap_or_default()) {
                match pair.split(':').collect::<Vec<_>>()[..] {
                    [from, to] => drop(renames.insert(from.to_owned(), to.to_owned())),
                    _ => own.wrong("renames", format!("`{pair}`: field:name")),
                }
            }
            Smt::ReplaceField { side, exclude, include, renames, defaults }
        }
        "MaskField" => {
            let fields = own.names("fields").into_iter().collect();
            let replacement = own.get("replacement").map(str::to_owned);
            if replacement.as_deref() == Some("") {
                own.wrong("replacement", "a text, or left out");
            }
            Smt::MaskField { side, fields, replacement, defaults }
        }
        "Cast" => cast(side, defaults, own)?,
        "TimestampConverter" => timestamp_converter(side, defaults, own)?,
        "Flatten" => Smt::Flatten { side, delimiter: own.get("delimiter").unwrap_or(".").to_owned() },
        "HoistField" => Smt::HoistField { side, field: own.required("field").to_owned() },
        "ExtractField" => {
            let path = own.required("field");
            let steps = match own.get("field.syntax.version").map_or("V1", str::trim) {
                v if v.eq_ignore_ascii_case("V2") => paths::steps(path),
                v if v.eq_ignore_ascii_case("V1") => Ok(vec![path.to_owned()]),
                _ => {
                    own.wrong("field.syntax.version", "one of V1, V2");
                    return None;
                }
            };
            match steps {
                Ok(path) => Smt::ExtractField { side, path, defaults },
                Err(why) => {
                    own.wrong("field", why);
                    return None;
                }
            }
        }
        "SetSchemaMetadata" => {
            let name = own.get("schema.name").map(str::to_owned);
            let version = own.get("schema.version").map(|v| v.trim().parse::<i32>());
            if matches!(version, Some(Err(_))) {
                own.wrong("schema.version", "a number");
            }
            if name.is_none() && version.is_none() {
                own.wrong("schema.name", "it or schema.version must be given");
            }
            let version = version.and_then(Result::ok).map(i64::from);
            Smt::SetSchemaMetadata { side, name, version, defaults }
        }
        _ => {
            let fields = own.names("fields");
            let fields = pairs(own, fields, "headers");
            let moves = moves(own);
            Smt::HeaderFrom { side, fields, moves, defaults }
        }
    })
}

fn swap(own: &mut Own<'_>) -> Option<Smt> {
    let given = own.get("srids").map_or_else(|| list("4326,3857,4269"), list);
    let srids = given.iter().map(|n| n.parse::<i32>().map(i64::from)).collect::<Result<BTreeSet<i64>, _>>();
    if srids.is_err() {
        own.wrong("srids", "numbers of reference systems, with commas between");
    }
    Some(Smt::Geometry(Shape::Swap(srids.ok()?)))
}

fn zones(own: &mut Own<'_>) -> Option<Smt> {
    let name = own.required("converted.timezone").trim();
    let zone = Zone::parse(name);
    if zone.is_none() && !name.is_empty() {
        own.wrong(
            "converted.timezone",
            format!("`{name}`: the name of a zone, America/Los_Angeles, or an offset, +08:00"),
        );
    }
    let mut set = |key| list(own.get(key).unwrap_or_default());
    let (include, exclude) = (set("include.list"), set("exclude.list"));
    let (key, items, which) = match (include.is_empty(), exclude.is_empty()) {
        (true, true) => ("include.list", include, Which::All),
        (false, true) => ("include.list", include, Which::Include),
        (true, false) => ("exclude.list", exclude, Which::Exclude),
        (false, false) => {
            own.wrong("exclude.list", "`include.list` is given, too: one of them");
            return None;
        }
    };
    match Rules::parse(&items) {
        Ok(rules) => Some(Smt::Zones(Arc::new(Zones { zone: zone?, flat: false, which, rules }))),
        Err(why) => {
            own.wrong(key, why);
            None
        }
    }
}

/// Names and, in the same order, those of the other list.
fn pairs(own: &mut Own<'_>, first: Vec<String>, key: &'static str) -> Vec<(String, String)> {
    let second = own.names(key);
    if first.len() != second.len() {
        own.wrong(key, "as many names as in the other list");
    }
    first.into_iter().zip(second).collect()
}

fn moves(own: &mut Own<'_>) -> bool {
    match own.required("operation").trim() {
        "move" => true,
        "copy" | "" => false,
        _ => {
            own.wrong("operation", "one of move, copy");
            false
        }
    }
}

fn insert_field(side: Side, defaults: bool, own: &mut Own<'_>) -> Option<Smt> {
    let mut at = |key| own.get(key).map(Insertion::parse);
    let (topic, partition, timestamp) = (at("topic.field"), at("partition.field"), at("timestamp.field"));
    let fixed = at("static.field");
    if own.get("offset.field").is_some() {
        own.wrong("offset.field", "for sinks alone: Connect's task fails at the first record of a source");
    }
    for (key, of) in [("partition.field", &partition), ("timestamp.field", &timestamp)] {
        if of.as_ref().is_some_and(|i| !i.optional) {
            own.wrong(key, "records of a source have none when transforms see them: it cannot be required");
        }
    }
    let value = own.get("static.value").map(str::to_owned);
    let is_nothing = topic.is_none() && partition.is_none() && timestamp.is_none() && fixed.is_none();
    let fixed = match (fixed, value) {
        (Some(at), Some(value)) => Some((at, value)),
        (Some(_), None) => {
            own.wrong("static.value", "must be given with static.field");
            None
        }
        (None, _) => None,
    };
    if is_nothing {
        own.wrong("static.field", "it, topic.field, partition.field or timestamp.field must be given");
    }
    Some(Smt::InsertField { side, topic, partition, timestamp, fixed, defaults })
}

fn cast(side: Side, defaults: bool, own: &mut Own<'_>) -> Option<Smt> {
    const KINDS: &str = "int8, int16, int32, int64, float32, float64, boolean, string";
    let (mut casts, mut whole) = (std::collections::BTreeMap::new(), None);
    let spec = list(own.required("spec"));
    for entry in &spec {
        let parts: Vec<&str> = entry.split(':').map(str::trim).collect();
        let kind = parts.last().and_then(|name| Kind::named(&name.to_ascii_lowercase()));
        let kind = kind.filter(|k| !matches!(k, Kind::Bytes | Kind::Array | Kind::Map | Kind::Struct));
        match (&parts[..], kind) {
            ([field, _], Some(kind)) => drop(casts.insert((*field).to_owned(), kind)),
            ([_], Some(kind)) => whole = Some(kind),
            _ => own.wrong("spec", format!("`{entry}`: field:kind, or a kind; one of {KINDS}")),
        }
    }
    if whole.is_some() && spec.len() > 1 {
        own.wrong("spec", "a kind for the whole stands alone");
    }
    Some(Smt::Cast { side, casts, whole, defaults })
}

fn timestamp_converter(side: Side, defaults: bool, own: &mut Own<'_>) -> Option<Smt> {
    let field = own.get("field").unwrap_or_default().to_owned();
    let target = match own.required("target.type") {
        "string" => Target::Text,
        "unix" => Target::Unix,
        "Date" => Target::Date,
        "Time" => Target::Time,
        "Timestamp" => Target::Timestamp,
        _ => {
            own.wrong("target.type", "one of string, unix, Date, Time, Timestamp");
            return None;
        }
    };
    let precision = match own.get("unix.precision").unwrap_or("milliseconds") {
        "seconds" => Precision::Seconds,
        "milliseconds" => Precision::Millis,
        "microseconds" => Precision::Micros,
        "nanoseconds" => Precision::Nanos,
        _ => {
            own.wrong("unix.precision", "one of seconds, milliseconds, microseconds, nanoseconds");
            return None;
        }
    };
    let pattern = own.get("format").filter(|f| !f.trim().is_empty());
    let format = match pattern.map(Format::parse) {
        Some(Err(why)) => {
            own.wrong("format", why);
            return None;
        }
        format => format.and_then(Result::ok),
    };
    if target == Target::Text && format.is_none() {
        own.wrong("format", "must be given for target.type = string");
    }
    Some(Smt::TimestampConverter { side, field, target, format, precision, defaults })
}

/// Connect reads the literal as a value, and prints it again: served is what comes out as it went in.
fn insert_header(own: &mut Own<'_>) -> Option<Smt> {
    let (name, value) = (own.required("header").to_owned(), own.get("value.literal").unwrap_or_default().to_owned());
    let is_word = value.starts_with(|c: char| c.is_alphabetic())
        && value.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '/'))
        && !value.ends_with(' ')
        && !["null", "nan", "infinity"].iter().any(|w| value.eq_ignore_ascii_case(w));
    let is_number = value.parse::<i64>().is_ok_and(|n| n.to_string() == value);
    if !is_word && !is_number {
        own.wrong(
            "value.literal",
            "a word or a whole number: Connect would print other texts otherwise than they stand",
        );
    }
    Some(Smt::InsertHeader { name, value })
}
