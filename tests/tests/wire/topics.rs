//! B. Metadata and topics.

use catchwater_tests::broker::{Broker, Settings, unique};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;

use crate::wire::*;

pub fn create(name: &str, configs: &[(&str, &str)]) -> CreatableTopic {
    kp!(CreatableTopic {
        name: topic_name(name),
        num_partitions: -1,
        replication_factor: -1,
        configs: configs
            .iter()
            .map(|(k, v)| kp!(CreatableTopicConfig { name: text(k), value: Some(text(v)) }))
            .collect(),
    })
}

pub fn create_all(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    kp!(CreateTopicsRequest { topics: topics, timeout_ms: 10_000, validate_only: validate_only })
}

fn by_name(names: &[&str], create: bool) -> MetadataRequest {
    kp!(MetadataRequest {
        topics: Some(names.iter().map(|n| kp!(MetadataRequestTopic { name: Some(topic_name(n)) })).collect()),
        allow_auto_topic_creation: create,
    })
}

#[test]
fn wire_015_null_means_all_topics_and_empty_none_but_at_v0_empty_means_all() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("all");
    wire.topic(&name);
    let all = kp!(MetadataRequest { topics: None });
    let none = kp!(MetadataRequest { topics: Some(vec![]) });
    let has =
        |reply: &MetadataResponse| reply.topics.iter().any(|t| t.name.as_ref().is_some_and(|n| n.as_str() == name));
    assert!(has(&wire.call(12, &all)) && has(&wire.call(1, &kp!(MetadataRequest { topics: None }))));
    assert!(wire.call(12, &none).topics.is_empty() && wire.call(1, &none).topics.is_empty());
    assert!(has(&wire.call(0, &none)));
}

#[test]
fn wire_016_an_unknown_legal_name_is_created_when_allowed() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("auto");
    let denied = wire.call(12, &by_name(&[&name], false));
    assert_eq!(denied.topics[0].error_code, 3);
    for bad in ["", ".", "..", "sp ace", "ümlaut", &"x".repeat(250), "a/b"] {
        let reply = wire.call(12, &by_name(&[bad], true));
        assert_eq!(reply.topics[0].error_code, 17, "{bad:?}");
    }
    let first = wire.call(12, &by_name(&[&name], true));
    assert!(matches!(first.topics[0].error_code, 0 | 3 | 5), "{}", first.topics[0].error_code);
    let topic = wire.topic(&name);
    if !broker.is_foreign() {
        assert_eq!(topic.partitions.len(), 1, "num.partitions");
    }
    assert_eq!(topic.partitions[0].replica_nodes.len(), 1);
    assert_eq!(wire.call(12, &by_name(&[&name], false)).topics[0].error_code, 0);
}

#[test]
fn wire_017_topic_ids_are_shown_and_looked_up() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("ids");
    let topic = wire.topic(&name);
    assert!(!topic.topic_id.is_nil());
    let ask_with = |name: Option<&str>, id| {
        kp!(MetadataRequest {
            topics: Some(vec![kp!(MetadataRequestTopic { name: name.map(topic_name), topic_id: id })]),
            allow_auto_topic_creation: false,
        })
    };
    let ask = |id| ask_with(None, id);
    // Java's AdminClient sends an empty name beside the id; the id counts.
    for beside in [None, Some("")] {
        let found = wire.call(12, &ask_with(beside, topic.topic_id));
        assert_eq!(found.topics[0].name, Some(topic_name(&name)));
    }
    let gone = wire.topic(&unique("gone"));
    delete(&mut wire, gone.name.as_ref().unwrap().as_str());
    let lost = wire.call(12, &ask(gone.topic_id));
    assert_eq!((lost.topics[0].error_code, lost.topics[0].name.is_none()), (100, true));
    let lost = wire.call(13, &ask_with(Some(""), gone.topic_id));
    assert_eq!((lost.topics[0].error_code, lost.topics[0].topic_id), (100, gone.topic_id));
    // v13: by name as before.
    let reply = wire.call(13, &by_name(&[&name], false));
    assert_eq!((reply.error_code, reply.topics[0].topic_id), (0, topic.topic_id));
}

pub fn delete(wire: &mut Wire, name: &str) {
    let request = kp!(DeleteTopicsRequest {
        topics: vec![kp!(DeleteTopicState { name: Some(topic_name(name)) })],
        timeout_ms: 10_000,
    });
    assert_eq!(wire.call(6, &request).responses[0].error_code, 0);
    gone(wire, name);
}

/// Metadata no longer shows the topic; a Kafka needs a moment, ours has acted before it answers.
fn gone(wire: &mut Wire, name: &str) {
    for _ in 0..100 {
        if wire.call(12, &by_name(&[name], false)).topics[0].error_code == 3 {
            return;
        }
        assert!(foreign(), "{name} is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{name} is still there");
}

#[test]
fn wire_018_019_clients_with_ids_never_reach_a_topic_made_anew() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("again");
    let old = wire.topic(&name).topic_id;
    let produce = |id| {
        kp!(ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![kp!(TopicProduceData {
                topic_id: id,
                partition_data: vec![kp!(PartitionProduceData { index: 0, records: Some(batch(&["old"])) })],
            })],
        })
    };
    let fetch = |id| {
        kp!(FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![kp!(FetchTopic {
                topic_id: id,
                partitions: vec![kp!(FetchPartition {
                    partition: 0,
                    fetch_offset: 0,
                    partition_max_bytes: 1 << 20,
                    current_leader_epoch: -1,
                    log_start_offset: -1,
                    last_fetched_epoch: -1,
                })],
            })],
        })
    };
    let code = |reply: ProduceResponse| reply.responses[0].partition_responses[0].error_code;
    let fetched = |reply: FetchResponse| reply.responses[0].partitions[0].clone();
    assert_eq!(code(wire.call(13, &produce(old))), 0);
    for version in 13..=18 {
        let part = fetched(wire.call(version, &fetch(old)));
        assert_eq!((part.error_code, values(&part, 0)), (0, vec!["old".to_owned()]), "Fetch {version}");
    }
    delete(&mut wire, &name);
    assert_eq!(code(wire.call(13, &produce(old))), 100);
    let new = wire.topic(&name).topic_id;
    assert_ne!(old, new);
    assert_eq!(code(wire.call(13, &produce(old))), 100);
    assert_eq!(fetched(wire.call(13, &fetch(old))).error_code, 100);
    assert_eq!(values(&fetched(wire.call(13, &fetch(new))), 0), Vec::<String>::new(), "nothing of the old log is left");
}

#[test]
fn wire_020_create_topics() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (good, named, twice) = (unique("good"), unique("conf"), unique("twice"));
    // validate_only changes nothing.
    let reply = wire.call(7, &create_all(vec![create(&good, &[])], true));
    assert_eq!(reply.topics[0].error_code, 0);
    assert_eq!(wire.call(12, &by_name(&[&good], false)).topics[0].error_code, 3);
    // One bad among good ones fails alone; a name twice fails as a whole name.
    let mut crowd = create(&unique("crowd"), &[]);
    crowd.replication_factor = 3;
    let mut none = create(&unique("none"), &[]);
    none.num_partitions = 0;
    let request = create_all(
        vec![
            create(&good, &[]),
            create("bad name", &[]),
            create(&named, &[("cleanup.policy", "compact"), ("retention.ms", "1000")]),
            create(&unique("config"), &[("no.such.config", "1")]),
            create(&unique("value"), &[("retention.ms", "soon")]),
            crowd,
            none,
            create(&twice, &[]),
            create(&twice, &[]),
        ],
        false,
    );
    let reply = wire.call(7, &request);
    let of = |name: &str| reply.topics.iter().find(|t| t.name.as_str() == name).unwrap();
    let starting = |prefix: &str| reply.topics.iter().find(|t| t.name.as_str().starts_with(prefix)).unwrap().error_code;
    let created = of(&good);
    assert_eq!((created.error_code, created.replication_factor), (0, 1));
    assert_eq!(created.num_partitions, wire.topic(&good).partitions.len() as i32);
    assert!(!created.topic_id.is_nil());
    let configs = created.configs.as_ref().unwrap();
    assert!(configs.len() >= 25, "v5+ returns all configs: {}", configs.len());
    let policy = of(&named).configs.as_ref().unwrap().iter().find(|c| c.name.as_str() == "cleanup.policy").unwrap();
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("compact"), 1));
    assert_eq!(of("bad name").error_code, 17);
    assert_eq!((starting("config-"), starting("value-"), starting("crowd-"), starting("none-")), (40, 40, 38, 37));
    assert!(reply.topics.iter().filter(|t| t.name.as_str() == twice).all(|t| t.error_code == 42));
    assert_eq!(wire.call(12, &by_name(&[&twice], false)).topics[0].error_code, 3);
    // Good ones are in Metadata at once; existing ones are refused at every version.
    assert_eq!(wire.topic(&named).topic_id, of(&named).topic_id);
    for version in 2..=7 {
        // -1 for the number of partitions is known from version 4 on.
        let mut again = create(&good, &[]);
        (again.num_partitions, again.replication_factor) = (1, 1);
        let reply = wire.call(version, &create_all(vec![again], false));
        assert_eq!(reply.topics[0].error_code, 36, "version {version}");
    }
}

/// librdkafka's get_watermark_offsets does not ask again after 78.
#[test]
fn wire_020b_a_topic_that_was_made_knows_its_end() {
    let broker = Broker::start();
    if broker.is_foreign() {
        // Kafka answers 3 or 6 for a moment, which clients do ask again.
        return;
    }
    let mut wire = Wire::to(&broker);
    for _ in 0..20 {
        let name = unique("made");
        let mut topic = create(&name, &[]);
        topic.num_partitions = 5;
        wire.call(7, &create_all(vec![topic], false));
        assert_eq!(crate::fetch::offset_at(&mut wire, &name, -1), 0);
    }
}

#[test]
fn wire_021_names_that_collide_in_metrics_are_refused() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let stem = unique("col");
    let dotted = format!("{stem}.x");
    assert_eq!(wire.call(7, &create_all(vec![create(&dotted, &[])], false)).topics[0].error_code, 0);
    let reply = wire.call(7, &create_all(vec![create(&format!("{stem}_x"), &[])], false));
    assert_eq!(reply.topics[0].error_code, 17);
}

#[test]
fn wire_023_topics_are_deleted_by_id_and_by_name() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (first, second) = (unique("del"), unique("del"));
    let id = wire.topic(&first).topic_id;
    wire.topic(&second);
    let both = kp!(DeleteTopicState { name: Some(topic_name(&second)), topic_id: id });
    let ask = |topics| kp!(DeleteTopicsRequest { topics: topics, timeout_ms: 10_000 });
    // A name and an id in one entry: Kafka refuses the request as a whole by closing or answers 42.
    let refused = wire.call(6, &ask(vec![both]));
    assert_eq!(refused.responses[0].error_code, 42);
    let by_id = wire.call(6, &ask(vec![kp!(DeleteTopicState { name: None, topic_id: id })]));
    let result = &by_id.responses[0];
    assert_eq!(
        (result.error_code, result.name.as_deref(), result.topic_id),
        (0, Some(&topic_name(&first)).map(|n| &**n), id)
    );
    let again = wire.call(6, &ask(vec![kp!(DeleteTopicState { name: None, topic_id: id })]));
    assert_eq!(again.responses[0].error_code, 100);
    for version in 1..=5 {
        let request = kp!(DeleteTopicsRequest { topic_names: vec![topic_name(&unique("never"))], timeout_ms: 10_000 });
        assert_eq!(wire.call(version, &request).responses[0].error_code, 3, "version {version}");
    }
    let request = kp!(DeleteTopicsRequest { topic_names: vec![topic_name(&second)], timeout_ms: 10_000 });
    assert_eq!(wire.call(5, &request).responses[0].error_code, 0);
    gone(&mut wire, &second);
}

#[test]
fn wire_026_operation_bits_are_absent_unless_asked_for() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("bits");
    wire.topic(&name);
    let mut request = by_name(&[&name], false);
    assert_eq!(wire.call(12, &request).topics[0].topic_authorized_operations, i32::MIN);
    request.include_topic_authorized_operations = true;
    assert_eq!(wire.call(12, &request).topics[0].topic_authorized_operations, 3576);
}

#[test]
fn wire_027_internal_topics_are_marked_and_closed_for_clients() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    // The first look-up of a coordinator makes the topic.
    crate::groups::coordinator_ready(&mut wire, "some-group");
    let topic = wire.topic("__consumer_offsets");
    assert!(topic.is_internal);
    assert_eq!(topic.partitions.len(), 50);
    assert_eq!(wire.produce("__consumer_offsets", batch(&["x"])).error_code, 17);
    let plain = wire.topic(&unique("plain"));
    assert!(!plain.is_internal);
}

/// Also line 33: a Connect worker reads cleanup.policy of its topics.
#[test]
fn wire_029_describe_configs_lists_every_key_with_its_source() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("desc");
    wire.call(7, &create_all(vec![create(&name, &[("cleanup.policy", "compact")])], false));
    wire.topic(&name);
    let ask = |kind: i8, name: &str, keys: Option<Vec<&str>>| {
        kp!(DescribeConfigsRequest {
            resources: vec![kp!(DescribeConfigsResource {
                resource_type: kind,
                resource_name: text(name),
                configuration_keys: keys.map(|k| k.into_iter().map(text).collect()),
            })],
            include_synonyms: true,
        })
    };
    for version in 1..=4 {
        let reply = wire.call(version, &ask(2, &name, None));
        let result = &reply.results[0];
        assert_eq!((result.error_code, result.configs.len() >= 25), (0, true), "version {version}");
        let find = |key: &str| result.configs.iter().find(|c| c.name.as_str() == key).unwrap();
        assert_eq!(
            (find("cleanup.policy").value.as_deref(), find("cleanup.policy").config_source),
            (Some("compact"), 1)
        );
        assert_eq!((find("retention.ms").value.as_deref(), find("retention.ms").config_source), (Some("604800000"), 5));
        assert!(!find("cleanup.policy").synonyms.is_empty());
    }
    let one = wire.call(4, &ask(2, &name, Some(vec!["retention.ms"])));
    assert_eq!(one.results[0].configs.len(), 1);
    assert_eq!(wire.call(4, &ask(2, &unique("nobody"), None)).results[0].error_code, 3);
    let node = wire.call(12, &kp!(MetadataRequest { topics: Some(vec![]) })).brokers[0].node_id.0;
    let own = wire.call(4, &ask(4, &node.to_string(), None));
    assert_eq!((own.results[0].error_code, own.results[0].configs.is_empty()), (0, false));
}

#[test]
fn wire_topics_survive_a_kill() {
    let mut broker = Broker::start_with(Settings::default().with("num.partitions", "3"));
    if broker.is_foreign() {
        return;
    }
    let name = unique("kept");
    let before = Wire::to(&broker).topic(&name);
    Wire::to(&broker).produce(&name, batch(&["a", "b"]));
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    let after = wire.topic(&name);
    assert_eq!((after.topic_id, after.partitions.len()), (before.topic_id, 3));
    assert_eq!(values(&wire.fetch(&name, 0), 0), ["a", "b"]);
}
