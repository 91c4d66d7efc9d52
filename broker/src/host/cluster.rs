//! The host of group 0: the cluster's image and its tasks.
//!
//! What others read is the *committed* image; a [`ClusterListener`] hears of each change after it is committed and
//! before any answer that depends on it leaves.

use catchwater_coordinator::cluster::image::Topic;
use catchwater_record::TopicId;
use std::sync::Arc;

/// Acts on committed changes of the image: opens and drops partitions. Called in the order of the log, from one thread
/// at a time, without a lock of the cluster host that the listener could need; returns soon (it may queue disk work).
pub trait ClusterListener: Send + Sync {
    /// Also called for every topic there is, once, when the image is loaded at start.
    fn topic_created(&self, topic: &Arc<Topic>);
    fn topic_deleted(&self, topic: TopicId);
    fn config_changed(&self, topic: TopicId);
}
