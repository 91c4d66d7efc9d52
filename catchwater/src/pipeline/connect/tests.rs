#![allow(clippy::unwrap_used)]
use super::*;
use crate::pipeline::Pipeline;
use crate::pipeline::model::Component;
use catchwater_capture::{Properties, SnapshotMode};
use catchwater_change::encode::debezium_json::Converter;
use catchwater_deliver::park::NO_LIMIT;
use catchwater_deliver::worker::LogRefused;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

const SOURCE: [(&str, &str); 8] = [
    ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
    ("database.hostname", "db"),
    ("database.user", "ann@x"),
    ("database.password", "${secret:connect/inv/database.password}"),
    ("database.dbname", "shop"),
    ("topic.prefix", "inv"),
    ("plugin.name", "pgoutput"),
    ("table.include.list", "public.items, public\\.orders,sales.*"),
];

const SINK: [(&str, &str); 7] = [
    ("connector.class", "io.debezium.connector.jdbc.JdbcSinkConnector"),
    ("topics", "inv.public.items,inv.sales.orders"),
    ("connection.url", "jdbc:postgresql://db:5432/copy?sslmode=require&ApplicationName=x"),
    ("connection.username", "bob"),
    ("connection.password", "p/w"),
    ("insert.mode", "upsert"),
    ("primary.key.mode", "record_key"),
];

fn with(base: &[(&str, &str)], more: &[(&str, &str)]) -> Result<Translated, Vec<String>> {
    let mut config = map(base);
    config.extend(map(more));
    config.retain(|_, v| v != "-");
    translate(&config).map_err(|w| w.into_iter().map(|w| w.message).collect())
}

fn source(more: &[(&str, &str)]) -> Source {
    match with(&SOURCE, more) {
        Ok(Translated::Source(_, s)) => *s,
        other => panic!("{other:?}"),
    }
}

fn sink(more: &[(&str, &str)]) -> Sink {
    match with(&SINK, more) {
        Ok(Translated::Sink(s)) => *s,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_takes_debeziums_defaults() {
    let s = source(&[]);
    let Component::Postgres { url, slot, publication, .. } = &s.component else { panic!("{s:?}") };
    assert_eq!(url, "postgres://ann%40x:${secret:connect/inv/database.password}@db:5432/shop");
    assert_eq!((slot.as_deref(), publication.as_deref()), (Some("debezium"), Some("dbz_publication")));
    assert_eq!(s.tables, ["public.items", "public.orders", "sales.*"]);
    assert_eq!(s.snapshot, SnapshotMode::Initial);
    for (key, value) in [
        ("skipped.operations", "t"),
        ("publish.via.partition.root", "false"),
        ("flush.lsn.source", "true"),
        ("extended.headers.enabled", "true"),
        ("include.unknown.datatypes", "false"),
        ("key.converter.schemas.enable", "true"),
        ("value.converter.replace.null.with.default", "true"),
        ("decimal.handling.mode", "precise"),
    ] {
        assert_eq!(s.debezium.get(key).map(String::as_str), Some(value), "{key}");
    }
    // Its default and the same that was given are not one to Debezium's publication.
    let skipped = |more: &[(&str, &str)]| source(more).debezium.get("skipped.operations").cloned();
    assert_eq!(skipped(&[("compat.defects", "true")]), None);
    assert_eq!(skipped(&[("compat.defects", "true"), ("skipped.operations", "t")]).as_deref(), Some("t"));
    let changed = source(&[
        ("snapshot.select.statement.overrides", "sales.a"),
        ("snapshot.select.statement.overrides.sales.a", "SELECT * FROM sales.a WHERE b > 0"),
        ("field.name.adjustment.mode", "avro"),
        ("column.propagate.source.type", "sales.*"),
        ("errors.tolerance", "all"),
        ("schema.include.list", "sales"),
        ("column.mask.with.5.chars", "sales.a.b"),
        ("value.converter.schemas.enable", "false"),
        ("snapshot.mode", "no_data"),
    ]);
    assert_eq!(
        (changed.tables.as_slice(), changed.snapshot),
        (["sales.*".to_owned()].as_slice(), SnapshotMode::NoData)
    );
    assert_eq!(changed.debezium.get("column.mask.with.5.chars").map(String::as_str), Some("sales.a.b"));
    assert_eq!(changed.debezium.get("value.converter.schemas.enable").map(String::as_str), Some("false"));
    // Those that the class does not list, and Debezium reads all the same.
    for (key, value) in [
        ("message.prefix.exclude.list", "noise"),
        ("money.fraction.digits", "4"),
        ("topic.delimiter", "_"),
        ("topic.heartbeat.prefix", "beats"),
        ("topic.transaction", "trx"),
    ] {
        assert_eq!(source(&[(key, value)]).debezium.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn a_connector_that_is_taken_over_reads_no_snapshot() {
    let s = source(&[(OFFSET, r#"{"lsn": 7, "lsn_commit": 5}"#)]);
    assert_eq!(s.snapshot, SnapshotMode::NoData);
    for mode in ["always", "initial_only"] {
        let wrong = with(&SOURCE, &[(OFFSET, r#"{"lsn": 7, "lsn_commit": 5}"#), ("snapshot.mode", mode)]).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].contains("snapshot.mode"), "{wrong:?}");
    }
    assert!(matches!(s.component, Component::Postgres { taken: Some(text), .. } if text.contains("lsn_commit")));
    let wrong = with(&SOURCE, &[(OFFSET, "[1]")]).unwrap_err();
    assert!(wrong[0].contains(OFFSET), "{wrong:?}");
}

#[test]
fn every_property_of_the_connector_has_a_decision() {
    let words = |v| match v {
        Verdict::Honoured => "served",
        Verdict::Translated => "part of the pipeline",
        Verdict::DefaultOnly => "the default alone",
        Verdict::Ignored => "no effect",
    };
    let page = include_str!("../../../../docs/connect-properties.md");
    let definitions = Class::DebeziumPostgres.definitions();
    assert_eq!(definitions.len(), include_str!("source.tsv").lines().count(), "a line without a decision");
    assert!(definitions.len() > 140, "{}", definitions.len());
    let rows = |d: &Definition| page.lines().filter(|l| l.starts_with(&format!("| `{}` |", d.name))).count();
    for d in definitions {
        let row = format!("| `{}` | {} |", d.name, words(d.verdict));
        assert!(page.contains(&row) && rows(d) == 1, "docs/connect-properties.md lacks {row}");
        let why = page.lines().find_map(|l| l.strip_prefix(&row)).unwrap_or_default().trim_matches(['|', ' ']);
        let may_say = d.verdict == Verdict::DefaultOnly;
        assert!(may_say || why.is_empty() == (d.verdict != Verdict::Ignored), "{}: why has it no effect?", d.name);
        let refused = |value: &str| with(&SOURCE, &[(d.name, value)]).is_err();
        match (d.verdict, d.kind) {
            (Verdict::DefaultOnly, "BOOLEAN") => {
                let other = if d.default == Some("true") { "false" } else { "true" };
                assert!(refused(other), "{}", d.name);
            }
            (Verdict::DefaultOnly, "INT" | "LONG") => assert!(refused("7"), "{}", d.name),
            (Verdict::DefaultOnly, _) => assert!(refused("something"), "{}", d.name),
            // A property that is served is one that capture knows.
            (Verdict::Honoured, _) => {
                let known = catchwater_capture::properties::KNOWN.contains(&d.name);
                assert!(known || d.name == "topic.creation.groups", "{}", d.name);
            }
            _ => {}
        }
    }
}

#[test]
fn a_mode_made_of_flags_is_what_the_flags_say() {
    let mode = ("snapshot.mode", "configuration_based");
    let stream = ("snapshot.mode.configuration.based.start.stream", "true");
    let data = ("snapshot.mode.configuration.based.snapshot.data", "true");
    assert_eq!(source(&[mode, stream]).snapshot, SnapshotMode::NoData);
    assert_eq!(source(&[mode, stream, data]).snapshot, SnapshotMode::Always);
    assert!(with(&SOURCE, &[mode]).unwrap_err()[0].contains("initial_only"));
}

#[test]
fn modes_of_snapshots_are_debeziums() {
    for (word, mode) in [
        ("initial", SnapshotMode::Initial),
        ("INITIAL_ONLY", SnapshotMode::InitialOnly),
        ("when_needed", SnapshotMode::Initial),
        ("always", SnapshotMode::Always),
        ("no_data", SnapshotMode::NoData),
        ("never", SnapshotMode::NoData),
    ] {
        assert_eq!(source(&[("snapshot.mode", word)]).snapshot, mode, "{word}");
    }
    let wrong = |word| with(&SOURCE, &[("snapshot.mode", word)]).unwrap_err().join("; ");
    assert!(wrong("custom").contains("Java class"), "{}", wrong("custom"));
    assert!(wrong("schema_only").contains("Value must be one of"), "{}", wrong("schema_only"));
    let select = [
        ("snapshot.mode", "always"),
        ("snapshot.select.statement.overrides", "a.b"),
        ("snapshot.select.statement.overrides.a.b", "SELECT 1"),
    ];
    assert!(with(&SOURCE, &select).unwrap_err()[0].contains("always"));
}

#[test]
fn statements_and_guardrails_reach_the_source() {
    let given = [
        ("database.initial.statements", "SET a TO 1; SET b TO ';;'"),
        ("guardrail.collections.max", "3"),
        ("guardrail.collections.limit.action", "fail"),
    ];
    let s = source(&given);
    let properties = catchwater_capture::Properties::parse(s.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let reading = properties.unwrap().reading;
    assert_eq!(reading.initial_statements, ["SET a TO 1", "SET b TO ';'"]);
    assert!(reading.guardrail.is_some_and(|g| g.tables_max == 3 && g.fails));
    let wrong = with(&SOURCE, &[("guardrail.collections.max", "-1"), ("database.initial.statements", "BEGIN")]);
    assert_eq!(wrong.unwrap_err().len(), 2);
}

#[test]
fn transforms_and_topics_of_a_connector_reach_the_source() {
    let s = source(&[
        ("transforms", "route"),
        ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
        ("transforms.route.regex", "([^.]+)\\.([^.]+)\\.(?<t>[^.]+)"),
        ("transforms.route.replacement", "${t}"),
        ("topic.creation.default.replication.factor", "3"),
        ("topic.creation.default.partitions", "1"),
        ("topic.creation.default.cleanup.policy", "delete"),
    ]);
    let properties = catchwater_capture::Properties::parse(s.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let properties = properties.unwrap();
    let placed = properties.options.placing.0.unwrap().table("inv.public.items");
    assert_eq!(placed.topic, "items");
    assert_eq!(properties.creation.of("items").replication, Some(3));
    let why = with(&SOURCE, &[("transforms", "m"), ("transforms.m.type", "com.acme.Mask")]);
    assert!(why.unwrap_err()[0].contains("RegexRouter"), "what is served is said");
}

#[test]
fn converters_of_outbox_tables_are_taken_with_their_router_alone() {
    let router = [("transforms", "o"), ("transforms.o.type", "io.debezium.transforms.outbox.EventRouter")];
    let text = ("value.converter", "org.apache.kafka.connect.storage.StringConverter");
    let binary = ("value.converter", "io.debezium.converters.BinaryDataConverter");
    let delegate = ("value.converter.delegate.converter.type", "org.apache.kafka.connect.json.JsonConverter");
    let bytes = ("value.converter", "org.apache.kafka.connect.converters.ByteArrayConverter");
    let wrong = with(&SOURCE, &[bytes]).unwrap_err();
    assert!(wrong.len() == 1 && wrong[0].contains("EventRouter"), "{wrong:?}");
    let of = |more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = router.iter().chain(more).copied().collect();
        let of = source(&all);
        Properties::parse(of.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap().options
    };
    assert_eq!((of(&[text]).value_converter, of(&[text]).value_schema), (Converter::Text, false));
    let json = Converter::Binary(Some(Box::new(Converter::Json)));
    let all = of(&[binary, delegate]);
    assert_eq!((all.value_converter, all.value_schema, all.key_converter), (json, true, Converter::Json));
    let many = ("topic.creation.default.partitions", "6");
    assert!(of(&[many]).placing.0.is_some_and(|p| p.has_events()), "topics of events may have several");
}

#[test]
fn what_would_change_records_is_refused_and_what_would_not_is_not() {
    for (key, value) in [
        ("message.prefix.include.list", "("),
        ("value.converter.decimal.format", "NUMERIC"),
        ("topic.delimiter", "/"),
        ("tasks.max", "0"),
        ("money.fraction.digits", "99"),
        ("signal.enabled.channels", "jmx"),
        ("notification.enabled.channels", "jmx"),
        ("notification.enabled.channels", "sink"),
        ("transforms", "route"),
        ("predicates.p.type", "x"),
        ("topic.creation.default.partitions", "6"),
        ("topic.creation.mine.include", "a"),
        ("header.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("xmin.fetch.interval.ms", "-1"),
        ("snapshot.locking.mode", "custom"),
        ("topic.naming.strategy", "com.example.Other"),
        ("snapshot.mode", "custom"),
        ("snapshot.mode", "configuration_based"),
        ("plugin.name", "decoderbufs"),
        ("value.converter", "io.confluent.connect.avro.AvroConverter"),
        ("table.include.list", "public.(a|b"),
        ("table.include.list", "public\\.(?!a).*"),
        ("table.exclude.list", "public.a"),
        ("topic.prefix", "a.b"),
        ("max.batch.size", "many"),
        ("max.batch.size", "-1"),
        ("max.batch.size", "8192"),
        ("max.queue.size", "0"),
        ("max.queue.size", "2048"),
        ("snapshot.fetch.size", "-1"),
        ("snapshot.max.threads", "0"),
        ("max.queue.size.in.bytes", "-1"),
        ("slot.name", "Bad-Slot"),
        ("errors.tolerance", "ALL"),
        ("exactly.once.support", "maybe"),
        ("transaction.boundary", "x"),
        ("config.action.reload", "x"),
        ("tombstones.on.delete", "perhaps"),
        ("decimal.handling.mode", "exact"),
        ("database.password", "${nonsense:x}"),
    ] {
        assert_eq!(with(&SOURCE, &[(key, value)]).unwrap_err().len(), 1, "{key}={value}");
    }
    let signals =
        source(&[("signal.data.collection", "admin.signals"), ("signal.enabled.channels", "source,in-process")]);
    assert_eq!(signals.tables, ["public.items", "public.orders", "sales.*", "admin.signals"], "read though in no list");
    let file = source(&[("signal.enabled.channels", "file"), ("signal.file", " /run/signals.txt ")]);
    let of = |key: &str| file.debezium.get(key).map(String::as_str);
    assert_eq!((of("signal.file"), of("signal.poll.interval.ms")), (Some("/run/signals.txt"), Some("5000")));
    let told =
        source(&[("notification.enabled.channels", "sink,log"), ("notification.sink.topic.name", "debezium.told")]);
    assert_eq!(told.debezium.get("notification.sink.topic.name").map(String::as_str), Some("debezium.told"));
    for (key, value) in [
        ("signal.poll.interval.ms", "100"),
        ("heartbeat.interval.ms", "1000"),
        ("max.batch.size", "10"),
        ("max.batch.size", "8191"),
        ("slot.name", "${env:SLOT}"),
        ("errors.tolerance", "all"),
        ("exactly.once.support", "required"),
        ("transaction.boundary", "Poll"),
        ("config.action.reload", "none"),
        ("a.property.that.nobody.has", "x"),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("errors.log.enable", "true"),
        ("slot.drop.on.stop", "FALSE"),
        ("event.processing.failure.handling.mode", "warn"),
        ("database.sslfactory", "org.postgresql.ssl.NonValidatingFactory"),
    ] {
        source(&[(key, value)]);
    }
    let factory = ("database.sslfactory", "org.postgresql.ssl.NonValidatingFactory");
    assert_eq!(with(&SOURCE, &[factory, ("database.sslmode", "verify-full")]).unwrap_err().len(), 1);
    assert_eq!(with(&SOURCE, &[("database.sslfactory", "com.acme.Own")]).unwrap_err().len(), 1);
    let class = "io.debezium.processors.reselect.ReselectColumnsPostProcessor";
    let again = source(&[("post.processors", "again"), ("again.type", class), ("again.reselect.null.values", "false")]);
    assert_eq!(again.debezium.get("again.type").map(String::as_str), Some(class));
    assert_eq!(with(&SOURCE, &[("post.processors", "own"), ("own.type", "com.acme.Own")]).unwrap_err().len(), 1);
    let missing: Vec<(&str, &str)> = vec![("connector.class", SOURCE[0].1)];
    assert_eq!(translate(&map(&missing)).unwrap_err().len(), 4, "host, user, database, prefix");
}

/// What Debezium's lists take, ours take: `fits` of the tables that the translation names.
#[test]
fn debeziums_lists_of_tables_keep_their_meaning() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (&[("table.include.list", "-")], &["a.b", "public.items"], &[]),
        (
            &[("table.include.list", "public\\.(items|orders_\\d+)")],
            &["public.items", "public.orders_7"],
            &["public.orders"],
        ),
        (
            &[("table.include.list", "-"), ("table.exclude.list", "public.log.*")],
            &["public.items"],
            &["public.log", "public.log_2"],
        ),
        (&[("table.include.list", "-"), ("schema.exclude.list", "tmp_.*,x")], &["tmp.a"], &["tmp_1.a", "x.a"]),
        (
            &[("table.include.list", ".*\\.items"), ("schema.include.list", "shop_\\d,sales")],
            &["shop_1.items", "sales.items"],
            &["public.items", "sales.orders"],
        ),
        (
            &[("table.include.list", "-"), ("schema.include.list", "sales"), ("table.exclude.list", "sales.b")],
            &["sales.a"],
            &["sales.b", "public.a"],
        ),
    ];
    for (properties, taken, left) in cases {
        let s = source(properties);
        for (tables, is) in [(taken, true), (left, false)] {
            for table in tables {
                let found = s.table_names(&format!("inv.{table}"), "inv");
                assert_eq!(!found.is_empty(), is, "{properties:?}: {table}, {:?}", s.tables);
            }
        }
        assert_eq!(s.table_names("inv", "inv"), ["*"], "{properties:?}");
    }
}

#[test]
fn a_sink_takes_the_names_its_format_gives() {
    let s = sink(&[("topics", "inv.public.items")]);
    let Component::Postgres { url, schema, .. } = &s.component else { panic!("{s:?}") };
    assert_eq!(url, "postgres://bob:p%2Fw@db:5432/copy?sslmode=require");
    assert_eq!(schema.as_deref(), Some("public"));
    assert_eq!(s.target_name("inv.public.items"), "inv_public_items");
    assert_eq!((s.mode.as_str(), s.deletes, s.truncates, s.additive, s.park), ("upsert", false, false, false, None));
    let s = sink(&[
        ("collection.name.format", "${source.schema}_${source.table}"),
        ("delete.enabled", "true"),
        ("truncate.enabled", "true"),
        ("schema.evolution", "basic"),
        ("errors.tolerance", "all"),
        ("insert.mode", "insert"),
    ]);
    assert_eq!(s.target_name("inv.sales.orders"), "sales_orders");
    assert_eq!((s.mode.as_str(), s.deletes, s.truncates, s.additive), ("insert_once", true, true, true));
    assert!(s.park.is_some());
    let confluent = [
        ("connector.class", "io.confluent.connect.jdbc.JdbcSinkConnector"),
        ("topics", "inv.public.items"),
        ("connection.url", "jdbc:postgresql://db/copy"),
        ("connection.user", "bob"),
        ("insert.mode", "upsert"),
        ("pk.mode", "record_key"),
        ("auto.create", "true"),
        ("auto.evolve", "true"),
        ("transforms", "unwrap"),
        ("transforms.unwrap.type", "io.debezium.transforms.ExtractNewRecordState"),
    ];
    let Ok(Translated::Sink(s)) = translate(&map(&confluent)) else { panic!("Confluent's") };
    assert_eq!((s.target_name("inv.public.items"), s.additive, s.deletes), ("items".to_owned(), true, false));
}

#[test]
fn refused_rows_go_where_connect_would_put_them() {
    let of = |more: &[(&str, &str)]| {
        let s = sink(more);
        let to = s.dead_letters;
        (s.park, to.topic.map(|t| t.to_string()), to.context, to.log)
    };
    let all = Some((NO_LIMIT, NO_LIMIT));
    assert_eq!(of(&[]), (None, None, true, LogRefused::Never));
    assert_eq!(of(&[("errors.tolerance", "all")]), (all, None, true, LogRefused::Never));
    let named = [("errors.tolerance", "all"), ("errors.deadletterqueue.topic.name", "inv-errors")];
    assert_eq!(of(&named), (all, Some("inv-errors".into()), false, LogRefused::Never));
    let more = [
        ("errors.deadletterqueue.context.headers.enable", "true"),
        ("errors.log.enable", "true"),
        ("errors.log.include.messages", "true"),
    ];
    assert_eq!(of(&[&named[..], &more].concat()), (all, Some("inv-errors".into()), true, LogRefused::WhyAndWhere));
    for name in ["inv.public.items", "__consumer_offsets", "a b"] {
        let wrong = with(&SINK, &[("topics", "inv.public.items"), ("errors.deadletterqueue.topic.name", name)]);
        assert_eq!(wrong.unwrap_err().len(), 1, "{name}");
    }
    let mut pipeline = Pipeline { name: "copy.1".into(), sources: [].into(), sinks: [].into(), connect: None };
    assert_eq!(pipeline.letters_topic().as_str(), "copy.1.dlq");
    pipeline.sinks.insert("copy.1".into(), sink(&named));
    assert_eq!(pipeline.letters_topic().as_str(), "inv-errors");
}

#[test]
fn a_sink_that_names_its_key_writes_by_that_or_not_at_all() {
    let key = |more: &[(&str, &str)]| sink(more).columns("inv.public.items").key.clone();
    let id = Some(["id".to_owned()].into());
    assert_eq!(key(&[]), None);
    assert_eq!(key(&[("primary.key.fields", " id ")]), id);
    let by_value = [("primary.key.mode", "record_value"), ("primary.key.fields", "id")];
    assert_eq!(key(&by_value), id);
    let refused = |more: &[(&str, &str)]| {
        let Err(wrong) = with(&SINK, more) else { panic!("taken: {more:?}") };
        let of = |message: &String| message.split('\'').nth(1).map(str::to_owned);
        wrong.iter().map(|m| of(m).unwrap_or_else(|| m.clone())).collect::<Vec<_>>()
    };
    assert_eq!(refused(&[("primary.key.mode", "record_value")]), ["primary.key.fields"]);
    assert_eq!(refused(&[&by_value[..], &[("delete.enabled", "true")]].concat()), ["delete.enabled"]);
    assert_eq!(refused(&[("primary.key.mode", "kafka")]), ["primary.key.mode"]);
}

#[test]
fn a_sink_takes_the_fields_and_the_quotes_that_are_said() {
    let of = |s: &Sink, topic: &str| {
        let c = s.columns(topic);
        let list = |of: &std::collections::BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>().join(",");
        assert!(c.lenient);
        (c.keep.as_ref().map(list), list(&c.drop), c.fold)
    };
    let items = "inv.public.items";
    // Debezium writes names without quotes unless it is told to.
    assert_eq!(of(&sink(&[]), items), (None, String::new(), true));
    let s =
        sink(&[("quote.identifiers", "true"), ("field.include.list", "id, inv.public.items:qty,inv.public.other:x")]);
    assert_eq!(of(&s, items), (Some("id,qty".into()), String::new(), false));
    let s = sink(&[("field.exclude.list", "note"), ("field.include.list", "id")]);
    assert_eq!(of(&s, items), (None, "note".into(), true));
    let late = [("topics", "-"), ("topics.regex", "inv\\.public\\..*"), ("field.exclude.list", "note,inv.public.a:b")];
    let s = sink(&late);
    assert_eq!((of(&s, "inv.public.a").1, of(&s, "inv.public.c").1), ("b,note".to_owned(), "note".to_owned()));
    assert_eq!(sink(&[("collection.name.format", "Items")]).target_name(items), "items");
    assert_eq!(sink(&[("collection.name.format", "Items"), ("quote.identifiers", "true")]).target_name(items), "Items");
    let confluent = |more: &[(&str, &str)]| {
        let mut all = vec![
            ("connector.class", "io.confluent.connect.jdbc.JdbcSinkConnector"),
            ("topics", "inv.public.items"),
            ("connection.url", "jdbc:postgresql://db/copy"),
            ("connection.user", "bob"),
            ("insert.mode", "upsert"),
            ("pk.mode", "record_key"),
        ];
        all.extend(more);
        match translate(&map(&all)) {
            Ok(Translated::Sink(s)) => *s,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(&confluent(&[]), items), (None, String::new(), false));
    let s = confluent(&[("fields.whitelist", "qty"), ("quote.sql.identifiers", "never")]);
    assert_eq!(of(&s, items), (Some("qty".into()), String::new(), true));
}

#[test]
fn a_login_may_stand_in_the_jdbc_url() {
    let url = |more: &[(&str, &str)]| match sink(more).component {
        Component::Postgres { url, .. } => url,
        other => panic!("{other:?}"),
    };
    let login = "jdbc:postgresql://db:5432/copy?user=eve&password=a%40b";
    assert_eq!(url(&[("connection.url", login)]), "postgres://eve:a%40b@db:5432/copy", "it holds, as for the driver");
    let kept = "jdbc:postgresql://db:5432/copy?user=eve&password=${secret:connect/copy/connection.url.password}";
    let ours = "postgres://eve:${secret:connect/copy/connection.url.password}@db:5432/copy";
    assert_eq!(url(&[("connection.url", kept), ("connection.username", "-"), ("connection.password", "-")]), ours);
}

#[test]
fn a_sink_refuses_what_it_would_do_otherwise() {
    for (key, value) in [
        ("primary.key.mode", "none"),
        ("insert.mode", "update"),
        ("connection.url", "jdbc:mysql://db/copy"),
        ("topics", "inv.public.items,other.public.items"),
        ("topics", "plain"),
        ("collection.name.format", "${source.schema}.${source.table}"),
        ("collection.name.format", "${record.value}"),
    ] {
        let errors = with(&SINK, &[(key, value)]);
        assert!(errors.is_err(), "{key}={value}: {errors:?}");
    }
    assert_eq!(with(&SINK, &[("topics", "-")]).unwrap_err().len(), 2, "said of topics and topics.regex");
    for (key, value) in [
        ("topics.regex", "inv.*"),
        ("topics.regex", "(inv|shop)\\.public\\..*"),
        ("topics.regex", "inv\\.a\\..*|shop\\.a\\..*"),
        ("topics.regex", "inv\\.("),
        ("transforms.route.regex", "("),
        ("transforms.route.replacement", "-"),
        ("transforms.route.negate", "true"),
    ] {
        let more = [
            ("topics", "-"),
            ("topics.regex", "inv\\..*"),
            ("transforms", "route"),
            ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
            ("transforms.route.regex", "(.*)"),
            ("transforms.route.replacement", "$1"),
            (key, value),
        ];
        assert_eq!(with(&SINK, &more).unwrap_err().len(), 1, "{key}={value}");
    }
}

/// The example of Debezium's documentation and of Kafka's for `RegexRouter`, and what Java and Rust write otherwise.
#[test]
fn a_router_renames_topics_before_the_format_does() {
    let routed = |regex: &str, replacement: &str, more: &[(&str, &str)]| {
        let mut all = vec![
            ("transforms", "route,unwrap"),
            ("transforms.unwrap.type", "io.debezium.transforms.ExtractNewRecordState"),
            ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
            ("transforms.route.regex", regex),
            ("transforms.route.replacement", replacement),
        ];
        all.extend(more);
        sink(&all)
    };
    let three = "([^.]+)\\.([^.]+)\\.([^.]+)";
    for (regex, replacement, name) in [
        (three, "$3", "items"),
        (three, "$2_$3", "public_items"),
        (three, "$3x", "itemsx"),
        ("inv\\.(?<rest>.*)", "${rest}", "public_items"),
        ("other\\.(.*)", "$1", "inv_public_items"),
        ("inv", "x", "inv_public_items"),
    ] {
        let s = routed(regex, replacement, &[("topics", "inv.public.items")]);
        assert_eq!(s.target_name("inv.public.items"), name, "{regex} {replacement}");
    }
    // Topics that come later, too.
    let s = routed(three, "$3", &[("topics", "-"), ("topics.regex", "inv\\.(public|sales)\\..*")]);
    assert_eq!((s.source(), s.from.len(), s.tables.len()), ("inv", 1, 0));
    assert_eq!(s.target_name("inv.sales.late"), "late");
    assert!(whole(s.topics.as_deref().unwrap_or_default()).is_ok_and(|r| r.is_match("inv.sales.late")));
    let s = sink(&[
        ("topics", "-"),
        ("topics.regex", "inv[.]public[.].*"),
        ("collection.name.format", "copy_${source.table}"),
    ]);
    assert_eq!(s.target_name("inv.public.a"), "copy_a");
}

#[test]
fn names_are_safe_as_folders_and_topics() {
    for good in ["inv", "inv-connector", "Orders.Sink_2", "7"] {
        assert_eq!(name_problem(good), None, "{good}");
    }
    for bad in ["", "..", ".a", "a/b", "a b", "-a", "\u{e4}"] {
        assert!(name_problem(bad).is_some(), "{bad}");
    }
}

#[test]
fn every_definition_has_a_verdict() {
    for (class, count) in
        [(Class::DebeziumPostgres, 155), (Class::DebeziumJdbc, 55), (Class::ConfluentJdbc, 44), (Class::AivenJdbc, 44)]
    {
        assert_eq!(class.definitions().len(), count, "{class:?}");
        assert!(class.definition("name").is_some());
    }
}
