//! Apache Kafka's own command line tools against the built broker: `cargo xtask compat tools`.

use std::path::Path;

use catchwater_tests::broker::{Broker, unique};
use catchwater_tests::kafka::{self, tool};

use crate::wire::*;

/// Runs a class of `org.apache.kafka.tools` that ends well.
fn run(libs: &Path, broker: &Broker, class: &str, args: &[&str]) -> String {
    let args = [args, &["--bootstrap-server", broker.kafka()]].concat();
    tool(libs, &format!("org.apache.kafka.tools.{class}"), &args).unwrap()
}

#[test]
fn apache_kafkas_tools_administer_the_node() {
    let Some(libs) = kafka::libs() else { return };
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("tools");
    wire.topic(&name);
    let bytes = batch(&["a", "b"]);
    wire.produce(&name, bytes.clone());
    run(&libs, &broker, "TopicCommand", &["--alter", "--topic", &name, "--partitions", "3"]);
    assert_eq!(wire.topic(&name).partitions.len(), 3);
    let producer = crate::produce::producer_id(&mut wire);
    let builder = catchwater_record::batch::build::Builder::new().producer(producer.0, producer.1, 0);
    wire.produce(&name, batch_with(builder, now_ms(), &["c"]));

    let id = run(&libs, &broker, "ClusterTool", &["cluster-id"]);
    assert!(id.contains("Cluster ID: "), "{id}");
    let listed = run(&libs, &broker, "ClusterTool", &["list-endpoints"]);
    assert!(listed.contains(&broker.address().port().to_string()), "{listed}");

    let text = run(&libs, &broker, "LogDirsCommand", &["--describe", "--topic-list", &name]);
    let line = text.lines().find(|l| l.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    let told: serde_json::Value = serde_json::from_str(line).unwrap();
    let dir = &told["brokers"][0]["logDirs"][0];
    let partitions = dir["partitions"].as_array().unwrap();
    assert!(partitions.len() == 3 && dir["error"].is_null(), "{told}");
    assert!(partitions.iter().all(|p| p["partition"].as_str().unwrap().starts_with(&name)), "{told}");

    let offsets = run(&libs, &broker, "GetOffsetShell", &["--topic", &name]);
    assert_eq!(offsets.trim(), format!("{name}:0:3\n{name}:1:0\n{name}:2:0"));

    let asked = ["--bootstrap-server", broker.kafka(), "describe-producers", "--topic", &name, "--partition", "0"];
    let described = tool(&libs, "org.apache.kafka.tools.TransactionsCommand", &asked).unwrap();
    let row = described.lines().nth(1).unwrap_or_else(|| panic!("{described}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[3]), (&*producer.0.to_string(), "0", "0"), "{described}");

    let refused = tool(
        &libs,
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", broker.kafka(), "--alter", "--topic", &name, "--partitions", "2"],
    );
    assert!(format!("{refused:?}").contains("InvalidPartitionsException"), "{refused:?}");
}
