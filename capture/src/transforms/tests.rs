#![allow(clippy::unwrap_used)]
use super::*;
use catchwater_change::encode::debezium_json::Places;

fn parsed<'p>(given: &[(&'p str, &'p str)]) -> Result<Transforms, Faults> {
    Transforms::parse(&given.iter().copied().collect())
}

fn wrong(given: &[(&str, &str)]) -> Vec<String> {
    parsed(given).unwrap_err().into_iter().map(|(k, why)| format!("{k}: {why}")).collect()
}

/// Source of the expected names: `java.util.regex` of OpenJDK 17, by hand.
#[test]
fn replacements_are_javas() {
    let renamed = |regex: &str, to: &str, name: &str| Rename::new(regex, to).unwrap().apply(name);
    for (regex, to, name, want) in [
        ("pg\\.(.*)\\.(.*)", "$2", "pg.public.orders", Some("orders")),
        ("pg\\.(.*)\\.(.*)", "$2", "xpg.public.orders", None),
        ("(.*)_a", "$10", "t_a", Some("t0")),
        ("(?<s>[^.]+)\\.(.*)", "${s}-\\$$2\\x", "a.b", Some("a-$bx")),
        // The first place that fits is replaced, which need not be the whole.
        ("a|ab", "x", "ab", Some("xb")),
        ("(a)|(b)", "<$2>", "a", Some("<>")),
        (".*", "all", "t", Some("all")),
    ] {
        assert_eq!(renamed(regex, to, name).as_deref(), want, "{regex} {to} {name}");
    }
    for (regex, to) in [("a", "$1"), ("a", "$x"), ("a", "b\\"), ("(?<s>a)", "${t}"), ("a", "$")] {
        assert!(!Rename::new(regex, to).unwrap_err().0, "{to}");
    }
    assert!(Rename::new("(?=a)", "b").unwrap_err().0);
}

#[test]
fn transforms_run_in_their_order_where_their_predicate_fits() {
    let regex = "org.apache.kafka.connect.transforms.RegexRouter";
    let given = [
        ("transforms", "cut, un,log"),
        ("transforms.cut.type", regex),
        ("transforms.cut.regex", "pg\\.public\\.(.*)"),
        ("transforms.cut.replacement", "$1"),
        ("transforms.un.type", "io.debezium.transforms.ExtractNewRecordState"),
        ("transforms.un.predicate", "tables"),
        ("transforms.un.negate", "true"),
        ("transforms.log.type", "io.debezium.transforms.ByLogicalTableRouter"),
        ("transforms.log.topic.regex", "(shard)_\\d"),
        ("transforms.log.topic.replacement", "$1s"),
        ("transforms.log.key.field.regex", "shard_(.)"),
        ("transforms.log.key.field.replacement", "n$1"),
        ("predicates", "tables"),
        ("predicates.tables.type", "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"),
        ("predicates.tables.pattern", "other"),
    ];
    let t = parsed(&given).unwrap();
    let shard = t.table("pg.public.shard_7");
    assert_eq!(shard.topic, "shards");
    assert_eq!(shard.key_fields, [("__dbz__physicalTableIdentifier".to_owned(), "n7".to_owned())]);
    assert_eq!((shard.key_name.as_deref(), shard.row_name), (Some("shards.Key"), None), "a flat row's schema stays");
    assert!(shard.flat.is_some());
    let other = t.table("pg.public.other");
    assert_eq!((other.topic.as_str(), other.flat, other.key_fields.len()), ("other", None, 0));
    assert_eq!(t.other("pg.public.x"), Ok("x".to_owned()));
    assert!(t.other("pg.public.shard_1").unwrap_err().contains("no table's topic"));
    assert_eq!(t.deletes(), Some(Deletes::Null));
}

#[test]
fn modes_of_deletes_are_those_of_debezium_3_and_of_2() {
    let of = |given: &[(&str, &str)]| {
        let mut all = vec![("transforms", "u"), ("transforms.u.type", UNWRAP)];
        all.extend(given);
        let flat = parsed(&all).unwrap().table("t").flat.unwrap();
        (flat.deletes, flat.tombstones)
    };
    const NEW: &str = "transforms.u.delete.tombstone.handling.mode";
    const OLD: &str = "transforms.u.delete.handling.mode";
    const DROP: &str = "transforms.u.drop.tombstones";
    assert_eq!(of(&[]), (Deletes::Null, false));
    assert_eq!(of(&[(NEW, "rewrite-with-tombstone")]), (Deletes::Rewrite, true));
    assert_eq!(of(&[(NEW, "Drop"), (OLD, "rewrite")]), (Deletes::Drop, false));
    assert_eq!(of(&[(OLD, "rewrite")]), (Deletes::Rewrite, false));
    assert_eq!(of(&[(OLD, "rewrite"), (DROP, "false")]), (Deletes::Rewrite, true));
    assert_eq!(of(&[(DROP, "false")]), (Deletes::Drop, true));
    assert_eq!(of(&[(OLD, "none")]), (Deletes::Null, false));
}

#[test]
fn what_is_not_served_says_what_is() {
    for (class, why) in [
        ("com.acme.Own", "RegexRouter"),
        ("org.apache.kafka.connect.transforms.Cast", "Cast$Key"),
        ("org.apache.kafka.connect.transforms.TimestampRouter", "no time"),
        ("io.debezium.transforms.ContentBasedRouter", "script"),
        ("io.debezium.transforms.EnforceRecordSize", "64 MiB"),
        ("io.debezium.transforms.tracing.ActivateTracingSpan", "OpenTelemetry"),
        ("io.debezium.transforms.openlineage.OpenLineage", "openlineage.integration.enabled"),
    ] {
        let all = wrong(&[("transforms", "i"), ("transforms.i.type", class), ("transforms.i.static.field", "x")]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].starts_with("transforms.i.type: ") && all[0].contains(why), "{all:?}");
    }
    let all = wrong(&[
        ("transforms", "u, r"),
        ("transforms.u.type", UNWRAP),
        ("transforms.u.add.feilds", "op"),
        ("transforms.u.add.headers", "op,before"),
        ("transforms.u.route.by.field", "v"),
        ("transforms.u.delete.tombstone.handling.mode", "keep"),
        ("transforms.u.predicate", "nobody"),
        ("transforms.r.type", REGEX_ROUTER),
        ("transforms.r.regex", "("),
        ("transforms.x.type", UNWRAP),
        ("predicates", "p"),
        ("predicates.p.type", "com.acme.Predicate"),
    ]);
    for key in ["u.add.feilds", "u.add.headers", "u.route.by.field", "u.delete.tombstone", "u.predicate", "r.regex"] {
        assert!(all.iter().any(|w| w.starts_with(&format!("transforms.{key}"))), "{key}: {all:?}");
    }
    assert!(all.iter().any(|w| w.starts_with("transforms.r.replacement: must be given")), "{all:?}");
    assert!(all.iter().any(|w| w.starts_with("transforms.x.type: `transforms` does not name it")), "{all:?}");
    assert!(all.iter().any(|w| w.starts_with("predicates.p.type")), "{all:?}");
    let twice = [("transforms", "u"), ("transforms.u.type", UNWRAP), ("transforms.u.add.fields", "op,source.op:op")];
    assert!(wrong(&twice)[0].contains("one name"));
}

/// One transform of that class with those options, and a predicate of tombstones.
fn changing<'p>(class: &'p str, options: &[(&'p str, &'p str)]) -> Result<Transforms, Faults> {
    let keys: Vec<String> = options.iter().map(|(key, _)| format!("transforms.x.{key}")).collect();
    let mut all = vec![("transforms", "x"), ("transforms.x.type", class), ("predicates", "tomb")];
    all.push(("predicates.tomb.type", IS_TOMBSTONE));
    all.extend(keys.iter().zip(options).map(|(key, (_, value))| (key.as_str(), *value)));
    Transforms::parse(&all.into_iter().collect())
}

#[test]
fn what_looks_into_rows_and_messages_has_debeziums_options() {
    let debezium = |name: &str| format!("io.debezium.transforms.{name}");
    let message = "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent";
    for (class, good, bad) in [
        (debezium("SwapGeometryCoordinates"), Some(("srids", "1, 2")), Some(("srids", "a"))),
        (debezium("GeometryFormatTransformer"), Some(("format", "EWKB")), Some(("format", "wkt"))),
        (debezium("ExtractSchemaToNewRecord"), None, Some(("field", "a"))),
        (message.to_owned(), Some(("fields.null.include", "true")), Some(("fields.null.include", "1"))),
        (
            debezium("SchemaChangeEventFilter"),
            Some(("schema.change.event.exclude.list", "CREATE, DROP")),
            Some(("schema.change.event.exclude.list", "create")),
        ),
    ] {
        let given = |one: Option<(&str, &str)>| {
            let one: Vec<(&str, &str)> = one.into_iter().collect();
            changing(&class, &one).map(drop)
        };
        assert_eq!(given(good), Ok(()), "{class}");
        assert_eq!(given(bad).unwrap_err().len(), 1, "{class}");
    }
    let routing = |partitions: &str| {
        let options = [("partition.payload.fields", "change.id"), ("partition.topic.num", partitions)];
        changing(&debezium("partitions.PartitionRouting"), &options).map(drop)
    };
    assert_eq!(routing("1"), Ok(()));
    assert!(routing("3").unwrap_err()[0].1.contains("one partition"));
    // What a message becomes is nothing to a table's rows and keys.
    let t = changing(message, &[]).unwrap();
    assert_eq!((t.no_rows(Some("pg.public.t")), t.chain("pg.heartbeat").len()), (None, 0));
    let t = changing(&debezium("SwapGeometryCoordinates"), &[]).unwrap();
    assert!(t.no_rows(Some("pg.public.t")).is_some());
}

#[test]
fn what_changes_records_has_connects_options() {
    let kafka = |name: &str| format!("org.apache.kafka.connect.transforms.{name}");
    for (class, options, fault) in [
        ("Cast$Value", &[("spec", "a:int8, b : string")][..], ""),
        ("Cast$Value", &[("spec", "int8,a:int8")], "spec"),
        ("Cast$Value", &[("spec", "a:decimal")], "spec"),
        ("Cast$Key", &[], "spec"),
        ("ExtractField$Key", &[("field", "id")], ""),
        ("ExtractField$Key", &[("field", "`open"), ("field.syntax.version", "V2")], "field"),
        ("InsertField$Value", &[("static.field", "a!"), ("static.value", "v")], ""),
        ("InsertField$Value", &[("static.field", "a")], "static.value"),
        ("InsertField$Value", &[("timestamp.field", "a!")], "timestamp.field"),
        ("InsertField$Value", &[("offset.field", "a"), ("topic.field", "t")], "offset.field"),
        ("ReplaceField$Value", &[("renames", "a:b,c")], "renames"),
        ("TimestampConverter$Value", &[("field", "t"), ("target.type", "string")], "format"),
        ("TimestampConverter$Value", &[("target.type", "unix"), ("format", "EEE")], "format"),
        ("HeaderFrom$Value", &[("fields", "a,b"), ("headers", "h"), ("operation", "copy")], "headers"),
        ("InsertHeader", &[("header", "h"), ("value.literal", "1.50")], "value.literal"),
        ("InsertHeader", &[("header", "h"), ("value.literal", "shop 1")], ""),
        ("ValueToKey", &[("fields", "id"), ("field", "id")], "field"),
        ("Filter", &[("predicate", "tomb")], ""),
        ("Filter", &[], "predicate"),
        ("RegexRouter", &[("regex", "a"), ("replacement", "b"), ("predicate", "tomb")], "predicate"),
    ] {
        let class = kafka(class);
        let made = changing(&class, options);
        let faults: Vec<String> = made.as_ref().err().into_iter().flatten().map(|(key, _)| key.clone()).collect();
        let want: Vec<String> = (!fault.is_empty()).then(|| format!("transforms.x.{fault}")).into_iter().collect();
        assert_eq!(faults, want, "{class} {options:?}: {:?}", made.err());
    }
    let zone = ("converted.timezone", "Europe/Berlin");
    for (options, fault) in [
        (&[zone][..], ""),
        (&[], "converted.timezone"),
        (&[("converted.timezone", "Berlin")], "converted.timezone"),
        (&[zone, ("include.list", "source:t:a,topic:s.t,t:b")], ""),
        (&[zone, ("include.list", "t")], "include.list"),
        (&[zone, ("exclude.list", "t:a,source:t:b")], "exclude.list"),
        (&[zone, ("include.list", "t:a"), ("exclude.list", "t:a")], "exclude.list"),
    ] {
        let faults = changing("io.debezium.transforms.TimezoneConverter", options).err().unwrap_or_default();
        let faults: Vec<&str> = faults.iter().map(|(key, _)| key.trim_start_matches("transforms.x.")).collect();
        assert_eq!(faults.concat(), fault, "{options:?}");
    }
    let before_unwrap = |list| {
        let class = ("transforms.z.type", "io.debezium.transforms.TimezoneConverter");
        let zone = ("transforms.z.converted.timezone", "+01:00");
        let all =
            [("transforms", "z,u"), class, zone, ("transforms.z.include.list", list), ("transforms.u.type", UNWRAP)];
        parsed(&all).map(|t| t.table("s.t"))
    };
    let placed = before_unwrap("source:t:a").unwrap();
    assert!(placed.before.is_empty() && placed.chain.len() == 1 && placed.chain[0].changes_value());
    assert!(before_unwrap("source:t:source.ts_ms").is_err());
    let topic = ("transforms.r.replacement", "k");
    let all = [
        ("transforms", "i,r,f"),
        ("transforms.i.type", "org.apache.kafka.connect.transforms.InsertField$Key"),
        ("transforms.i.topic.field", "of"),
        ("transforms.r.type", REGEX_ROUTER),
        ("transforms.r.regex", ".*"),
        topic,
        ("transforms.f.type", FILTER),
        ("transforms.f.predicate", "tomb"),
        ("predicates", "tomb"),
        ("predicates.tomb.type", IS_TOMBSTONE),
    ];
    let t = parsed(&all).unwrap();
    let placed = t.table("s.t");
    assert_eq!((placed.chain.len(), placed.chain[0].topic.as_str(), placed.topic.as_str()), (1, "s.t", "k"));
    assert!(placed.drops.tombstones && !placed.drops.others);
    assert!(placed.chain[0].changes_key() && !placed.chain[0].changes_value());
    assert_eq!(t.chain("heartbeat").len(), 1);
    let late = [
        ("transforms", "m,u"),
        ("transforms.m.type", "org.apache.kafka.connect.transforms.MaskField$Value"),
        ("transforms.m.fields", "a"),
        ("transforms.u.type", UNWRAP),
    ];
    assert!(wrong(&late)[0].starts_with("transforms.u.type: it must stand before m"));
}
