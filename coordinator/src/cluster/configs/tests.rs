//! Keys, values and refusals as Kafka words them.

#![allow(clippy::unwrap_used)]
use super::*;
use catchwater_record::TopicName;

#[test]
fn every_default_passes_its_own_rule_and_keys_are_sorted() {
    for definition in TOPIC_KEYS.iter().chain(BROKER_KEYS) {
        check_value(definition, definition.default).unwrap();
    }
    let names: Vec<_> = TOPIC_KEYS[..KAFKA_TOPIC_KEYS].iter().map(|d| d.name).collect();
    assert!(names.is_sorted());
    assert!(BROKER_KEYS.iter().map(|d| d.name).is_sorted());
}

#[test]
fn topic_synonyms_that_are_broker_keys_have_the_same_default() {
    for definition in TOPIC_KEYS {
        for synonym in definition.synonyms {
            if let Some(broker) = broker_key(synonym) {
                assert_eq!(broker.default, definition.default, "{synonym}");
            }
        }
    }
}

/// (key, value, taken): the edges of Kafka's own validators.
#[test]
fn values_are_judged_as_kafka_does() {
    let cases = [
        ("cleanup.policy", "compact", true),
        ("cleanup.policy", "delete,compact", true),
        ("cleanup.policy", " compact , delete ", true),
        ("cleanup.policy", "compact,compact", true),
        ("cleanup.policy", "", true),
        ("cleanup.policy", "delete,", false),
        ("cleanup.policy", "squash", false),
        ("cleanup.policy", "Delete", false),
        ("compression.gzip.level", "-1", true),
        ("compression.gzip.level", "0", false),
        ("compression.gzip.level", "1", true),
        ("compression.gzip.level", "9", true),
        ("compression.gzip.level", "10", false),
        ("compression.lz4.level", "0", false),
        ("compression.lz4.level", "17", true),
        ("compression.lz4.level", "18", false),
        ("compression.zstd.level", "-131072", true),
        ("compression.zstd.level", "-131073", false),
        ("compression.zstd.level", "22", true),
        ("compression.zstd.level", "23", false),
        ("compression.type", "zstd", true),
        ("compression.type", "none", false),
        ("compression.type", "", false),
        ("delete.retention.ms", "0", true),
        ("delete.retention.ms", "-1", false),
        ("file.delete.delay.ms", "-1", false),
        ("flush.messages", "0", false),
        ("flush.messages", "1", true),
        ("flush.ms", "0", true),
        ("follower.replication.throttled.replicas", "*", true),
        ("follower.replication.throttled.replicas", "", true),
        ("follower.replication.throttled.replicas", "0:1,1:2", true),
        ("follower.replication.throttled.replicas", "0:1,", true),
        ("follower.replication.throttled.replicas", ",", true),
        ("follower.replication.throttled.replicas", ",0:1", false),
        ("follower.replication.throttled.replicas", "0", false),
        ("follower.replication.throttled.replicas", "a:1", false),
        ("index.interval.bytes", "0", true),
        ("index.interval.bytes", "2147483648", false),
        ("local.retention.bytes", "-2", true),
        ("local.retention.bytes", "-3", false),
        ("max.compaction.lag.ms", "0", false),
        ("max.compaction.lag.ms", "1", true),
        ("max.message.bytes", "0", true),
        ("max.message.bytes", "-1", false),
        ("max.message.bytes", "1e6", false),
        ("message.timestamp.type", "LogAppendTime", true),
        ("message.timestamp.type", "logappendtime", false),
        ("min.cleanable.dirty.ratio", "0", true),
        ("min.cleanable.dirty.ratio", "1.0", true),
        ("min.cleanable.dirty.ratio", "1e-1", true),
        ("min.cleanable.dirty.ratio", "0.5f", true),
        ("min.cleanable.dirty.ratio", "", false),
        ("min.cleanable.dirty.ratio", "inf", false),
        ("max.message.bytes", "\u{a0}5", false),
        ("max.message.bytes", "\t5\n", true),
        ("min.cleanable.dirty.ratio", "1.01", false),
        ("min.cleanable.dirty.ratio", "NaN", false),
        ("min.insync.replicas", "0", false),
        ("preallocate", "TRUE", true),
        ("preallocate", "yes", false),
        ("remote.storage.enable", "false", true),
        ("remote.storage.enable", "true", false),
        ("retention.bytes", "-100", true),
        ("retention.ms", "-1", true),
        ("retention.ms", "-2", false),
        ("retention.ms", "", false),
        ("segment.bytes", "1048575", false),
        ("segment.bytes", "1048576", true),
        ("segment.index.bytes", "3", false),
        ("segment.ms", "0", false),
        ("segment.jitter.ms", "0", true),
        ("storage.durability", "relaxed", true),
        ("storage.durability", "none", false),
        ("produce.validation", "walk", true),
    ];
    for (key, value, taken) in cases {
        assert_eq!(check_value(topic_key(key).unwrap(), value).is_ok(), taken, "{key}={value}");
    }
}

/// What `LogConfig.validate` of Kafka 4.3.1 says, word for word.
#[test]
fn refusals_are_worded_as_kafkas() {
    let cases = [
        (
            "cleanup.policy",
            "squash",
            "Invalid value squash for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        ("cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        (
            "compression.lz4.level",
            "18",
            "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
        ),
        (
            "min.cleanable.dirty.ratio",
            "1.01",
            "Invalid value 1.01 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        ("min.insync.replicas", "0", "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"),
        (
            "preallocate",
            "yes",
            "Invalid value yes for configuration preallocate: Expected value to be either true or false",
        ),
        (
            "index.interval.bytes",
            "2147483648",
            "Invalid value 2147483648 for configuration index.interval.bytes: Not a number of type INT",
        ),
        ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", " x ", "Invalid value  x  for configuration retention.ms: Not a number of type LONG"),
        ("flush.messages", " -0", "Invalid value 0 for configuration flush.messages: Value must be at least 1"),
        (
            "min.cleanable.dirty.ratio",
            "131072001",
            "Invalid value 1.31072001E8 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            "leader.replication.throttled.replicas",
            "*,0:1",
            "Invalid value [*, 0:1] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ),
    ];
    for (key, value, text) in cases {
        assert_eq!(check_value(topic_key(key).unwrap(), value).unwrap_err().to_string(), text);
    }
    assert_eq!(unknown("nope").to_string(), "Unknown topic config name: nope");
}

#[test]
fn a_set_is_judged_as_a_whole() {
    let pair = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
    assert!(topic_set(&[pair("min.compaction.lag.ms", "5"), pair("max.compaction.lag.ms", "4")]).is_err());
    assert_eq!(topic_set(&[pair("retention.ms", "1"), pair("retention.ms", "2")]), Err(ConfigError::Twice));
    assert_eq!(topic_set(&[("retention.ms".into(), None)]), Err(ConfigError::Null("retention.ms".into())));
    assert_eq!(topic_set(&[pair("nope", "1")]), Err(unknown("nope")));
    assert_eq!(topic_set(&[pair("retention.ms", " 7 ")]).unwrap()["retention.ms"], "7");
}

#[test]
fn the_file_gives_defaults_in_hours_too() {
    let file = FileSettings::from([("log.retention.hours".to_owned(), "1".to_owned())]);
    let topic = TopicName::from("t");
    assert_eq!(topic_value(&Image::default(), &file, &topic, "retention.ms"), "3600000");
    let all = describe_topic(&Image::default(), &file, &topic);
    let retention = all.iter().find(|d| d.name == "retention.ms").unwrap();
    assert_eq!((retention.source, retention.synonyms.len()), (ConfigSource::File, 1));
    assert_eq!(all.len(), TOPIC_KEYS.len());
}

/// What a real Kafka 4.3.1 shows of such values, and what acts on them here: a ratio of `0.9f` is 0.9.
#[test]
fn a_value_is_shown_and_used_as_it_is_understood() {
    let cases = [
        ("retention.ms", "+5", "5"),
        ("retention.ms", "-0", "0"),
        ("preallocate", "True ", "true"),
        ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("min.cleanable.dirty.ratio", "0.9f", "0.9"),
        ("min.cleanable.dirty.ratio", ".5", "0.5"),
        ("min.cleanable.dirty.ratio", "0.0001", "1.0E-4"),
        ("min.cleanable.dirty.ratio", "0.00012", "1.2E-4"),
        ("cleanup.policy", " compact , delete ", "compact,delete"),
        ("cleanup.policy", "delete,delete", "delete"),
        ("follower.replication.throttled.replicas", "0:1, 1:1,", "0:1,1:1,"),
    ];
    let topic = TopicName::from("t");
    for (key, written, understood) in cases {
        let mut image = Image::default();
        let set = topic_set(&[(key.to_owned(), Some(written.to_owned()))]).unwrap();
        image.apply(&ClusterRecord::Config { of: ConfigKey::Topic(topic.clone()), entries: Some(set) });
        assert_eq!(topic_value(&image, &FileSettings::new(), &topic, topic_key(key).unwrap().name), understood);
        let all = describe_topic(&image, &FileSettings::new(), &topic);
        let described = all.iter().find(|d| d.name == key).unwrap();
        assert_eq!((&*described.value, &*described.synonyms[0].value), (understood, understood), "{key}={written}");
    }
    let ratio = understood_ratio("0.0001");
    assert_eq!(ratio.parse::<f64>().unwrap(), 0.0001, "and a reader of {ratio} gets the same number");
}

fn understood_ratio(written: &str) -> String {
    canonical(topic_key("min.cleanable.dirty.ratio").unwrap(), written)
}

/// Kafka names no default for keys whose broker key is null there, nor for those that have no broker key.
#[test]
fn synonyms_are_those_of_kafka() {
    let all = describe_topic(&Image::default(), &FileSettings::new(), &TopicName::from("t"));
    let without: Vec<&str> = all.iter().filter(|d| d.synonyms.is_empty()).map(|d| d.name).collect();
    let kafkas = [
        "flush.ms",
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "retention.ms",
        "segment.jitter.ms",
        "segment.ms",
    ];
    assert_eq!(without, kafkas);
    assert!(all.iter().all(|d| d.source == ConfigSource::Default && !(d.value.is_empty() && d.kind != Kind::List)));
}

/// As a Kafka 4.3.1 was seen to answer: an empty text is an item, which no list takes; commas alone are none.
#[test]
fn what_is_appended_and_subtracted_is_split_as_java_splits() {
    let cases = [
        (None, "", "delete,", "delete"),
        (None, ",", "delete", "delete"),
        (None, "delete", "delete", ""),
        (None, "compact,,", "delete,compact", "delete"),
        (None, "compact, delete", "delete,compact, delete", "delete"),
        (Some("compact,delete"), "", "compact,delete,", "compact,delete"),
        (Some("compact,delete"), "delete,compact", "compact,delete", ""),
        (Some(""), "compact", "compact", ""),
    ];
    for (there, text, more, less) in cases {
        for (step, want) in [(ConfigStep::Append(text.into()), more), (ConfigStep::Subtract(text.into()), less)] {
            let mut entries: BTreeMap<String, String> =
                there.map(|value| ("cleanup.policy".to_owned(), value.to_owned())).into_iter().collect();
            step_entry(&mut entries, "cleanup.policy", &step).unwrap();
            assert_eq!(entries["cleanup.policy"], want, "{there:?} {step:?}");
        }
    }
}
