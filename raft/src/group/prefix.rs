//! Pure. Followers behind the first index (R11, R13, R14): what was trimmed is told, not sent.
//!
//! A prefix snapshot is kilobytes: where the log begins, and the state of producers and captures at a newer, committed
//! index. The follower takes the entries from the first index on as usual; those up to the state's index change no state
//! any more, since the state has them (`docs/decisions/prefix-snapshot.md`).

use super::GroupCore;
use super::conf::ConfState;
use super::store::Store;
use crate::effect::PeerId;
use catchwater_storage::PrefixSnapshot;
use raft::Ready;
use raft::eraftpb::{Message, MessageType, Snapshot};

impl Store {
    /// The log before the first index; `None` if nothing is missing in front of it.
    pub(super) fn prefix(&self) -> Option<PrefixSnapshot> {
        let prefix = self.log.prefix_snapshot();
        // R11: the crate wants an index above zero, and its term.
        (prefix.index.0 > 0 && prefix.term > 0).then_some(prefix)
    }
}

/// As the crate wants to see it.
pub(super) fn to_crate(prefix: &PrefixSnapshot) -> Option<Snapshot> {
    let conf = ConfState::decode(&prefix.conf).ok()?;
    let mut out = Snapshot::default();
    let meta = out.mut_metadata();
    meta.index = prefix.index.0;
    meta.term = u64::from(prefix.term);
    meta.set_conf_state(conf.to_crate());
    Some(out)
}

impl GroupCore {
    /// A checked one. The crate decides; if it takes it, the next Ready says so.
    pub(super) fn on_snapshot(&mut self, from: PeerId, term: u32, snapshot: PrefixSnapshot) {
        // One after the other: what is being made durable is what the next answer is about.
        let Some(theirs) = to_crate(&snapshot).filter(|_| self.installing.is_none()) else { return };
        let mut m = Message { from: from.0, to: self.config.peer.0, term: u64::from(term), ..Message::default() };
        m.set_msg_type(MessageType::MsgSnapshot);
        m.set_snapshot(theirs);
        self.node.mut_store().arriving = Some(Box::new(snapshot));
        let _ = self.node.step(m);
        if self.node.raft.raft_log.unstable_snapshot().is_none() {
            self.node.mut_store().arriving = None;
        }
    }

    /// If the crate took a snapshot: the log begins anew, readable before the crate forgets it (R3).
    pub(super) fn take_installed(&mut self, rd: &Ready) -> Option<Box<PrefixSnapshot>> {
        if rd.snapshot().get_metadata().index == 0 {
            return None;
        }
        let store = self.node.mut_store();
        let snapshot = store.arriving.take().expect("a snapshot of the crate came through `on_snapshot`");
        assert_eq!(snapshot.index.0, rd.snapshot().get_metadata().index, "the one that arrived");
        store.conf = ConfState::decode(&snapshot.conf).expect("checked when it came");
        store.log.install(&snapshot).expect("checked when it came");
        self.conf_index = snapshot.conf_index;
        Some(snapshot)
    }
}
