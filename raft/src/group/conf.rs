//! Pure. The members of a group as bytes of our own (`docs/formats/entry-context.md`), and as the crate wants them.

use crate::effect::PeerId;
use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8;

/// Who takes part in a group. `outgoing` and `learners_next` are filled only in a joint configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfState {
    pub voters: Vec<PeerId>,
    pub learners: Vec<PeerId>,
    pub outgoing: Vec<PeerId>,
    pub learners_next: Vec<PeerId>,
}

/// Why bytes are not a conf state of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum ConfError {
    #[error("conf state version {0} is not {VERSION}")]
    Version(u8),
    #[error("conf state of {0} bytes does not hold what it counts")]
    Length(usize),
    #[error("conf state has a field that must be zero")]
    Zero,
    #[error("conf state has no voter")]
    NoVoter,
    #[error("conf state names a peer twice, or peer 0")]
    Peer,
}

impl ConfState {
    pub fn of_voters(voters: impl Into<Vec<PeerId>>) -> Self {
        ConfState { voters: voters.into(), ..ConfState::default() }
    }

    /// At most 255 peers of a sort.
    pub fn encode(&self) -> Bytes {
        let lists = [&self.voters, &self.learners, &self.outgoing, &self.learners_next];
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        for list in lists {
            out.put_u8(u8::try_from(list.len()).expect("a group has fewer than 256 peers of a sort"));
        }
        out.put_u8(0);
        out.put_u16_le(0);
        for peer in lists.into_iter().flatten() {
            out.put_u64_le(peer.0);
        }
        out.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ConfError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(ConfError::Length(bytes.len()))?;
        if head[0] != VERSION {
            return Err(ConfError::Version(head[0]));
        }
        if head[5..8] != [0; 3] {
            return Err(ConfError::Zero);
        }
        let counts = &head[1..5];
        let total: usize = counts.iter().map(|n| usize::from(*n)).sum();
        if bytes.len() != HEAD_BYTES + 8 * total {
            return Err(ConfError::Length(bytes.len()));
        }
        let mut peers = bytes[HEAD_BYTES..].chunks_exact(8).map(|c| {
            let mut id = [0; 8];
            id.copy_from_slice(c);
            PeerId(u64::from_le_bytes(id))
        });
        let mut take = |n: u8| -> Vec<PeerId> { peers.by_ref().take(usize::from(n)).collect() };
        let state = ConfState {
            voters: take(counts[0]),
            learners: take(counts[1]),
            outgoing: take(counts[2]),
            learners_next: take(counts[3]),
        };
        if state.voters.is_empty() {
            return Err(ConfError::NoVoter);
        }
        // A peer may be outgoing and something else at once (joint), but never twice among voters and learners.
        let mut now: Vec<PeerId> = state.voters.iter().chain(&state.learners).copied().collect();
        now.sort_unstable();
        if now.windows(2).any(|w| w[0] == w[1]) || now.first() == Some(&PeerId(0)) {
            return Err(ConfError::Peer);
        }
        Ok(state)
    }

    pub(super) fn to_crate(&self) -> raft::eraftpb::ConfState {
        let ids = |list: &[PeerId]| list.iter().map(|p| p.0).collect::<Vec<u64>>();
        let mut out = raft::eraftpb::ConfState::default();
        out.set_voters(ids(&self.voters));
        out.set_learners(ids(&self.learners));
        out.set_voters_outgoing(ids(&self.outgoing));
        out.set_learners_next(ids(&self.learners_next));
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use catchwater_record::NodeId;

    #[test]
    fn golden_state_bytes() {
        let state = ConfState::of_voters([PeerId::new(NodeId(2), 1)]);
        let want = [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(state.encode(), &want[..]);
        assert_eq!(ConfState::decode(&want).unwrap(), state);
    }

    #[test]
    fn all_four_lists_come_back() {
        let p = |n| PeerId(n);
        let state = ConfState {
            voters: vec![p(1), p(2)],
            learners: vec![p(3)],
            outgoing: vec![p(1), p(4)],
            learners_next: vec![p(4)],
        };
        assert_eq!(ConfState::decode(&state.encode()).unwrap(), state);
    }

    #[test]
    fn bad_bytes_are_named() {
        let good = ConfState::of_voters([PeerId(5), PeerId(6)]).encode().to_vec();
        let check = |at: usize, value: u8, want: ConfError| {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(ConfState::decode(&bad), Err(want));
        };
        check(0, 2, ConfError::Version(2));
        check(1, 3, ConfError::Length(24));
        check(5, 1, ConfError::Zero);
        check(16, 5, ConfError::Peer);
        check(8, 0, ConfError::Peer);
        assert_eq!(ConfState::decode(&good[..7]), Err(ConfError::Length(7)));
        assert_eq!(ConfState::decode(&[1, 0, 0, 0, 0, 0, 0, 0]), Err(ConfError::NoVoter));
    }
}
