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
    #[error("conf change of kind {0} is not known to this version")]
    Step(u8),
}

/// One step of a change of members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfStep {
    AddVoter(PeerId),
    Remove(PeerId),
    AddLearner(PeerId),
}

impl ConfStep {
    pub fn peer(self) -> PeerId {
        match self {
            ConfStep::AddVoter(p) | ConfStep::Remove(p) | ConfStep::AddLearner(p) => p,
        }
    }
}

/// A change of members, as an entry holds it. It always enters a joint configuration (R24: explicit), which the leader
/// leaves with a change without steps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfChange {
    pub steps: Vec<ConfStep>,
}

/// Steps of one change at most: its TLV has one byte for its length.
pub const STEPS_MAX: usize = 15;
const CHANGE_HEAD_BYTES: usize = 8;
const STEP_BYTES: usize = 16;
/// The only transition this version makes.
const EXPLICIT: u8 = 2;

/// Why a change of members is not proposed (R23, R25: the crate would turn some of them into empty entries in silence).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfRefused {
    #[error("another change is under way")]
    Joint,
    #[error("there is no change to leave")]
    NotJoint,
    #[error("it names {0} twice, or nobody")]
    Peer(PeerId),
    #[error("it has more than {STEPS_MAX} steps")]
    TooMany,
    #[error("it removes or demotes the leader {0}: transfer first")]
    Leader(PeerId),
    #[error("it leaves no voter")]
    NoVoter,
    #[error("{0} is not a member")]
    NotMember(PeerId),
}

impl ConfChange {
    /// Leaves the joint configuration.
    pub fn leave() -> Self {
        ConfChange::default()
    }
    pub fn of(steps: impl Into<Vec<ConfStep>>) -> Self {
        ConfChange { steps: steps.into() }
    }

    /// Bytes of TLV 3; at most [`STEPS_MAX`] steps.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(CHANGE_HEAD_BYTES + STEP_BYTES * self.steps.len());
        out.put_u8(VERSION);
        out.put_u8(EXPLICIT);
        out.put_u8(u8::try_from(self.steps.len()).expect("steps are counted before they are encoded"));
        out.put_bytes(0, 5);
        for step in &self.steps {
            out.put_u8(match step {
                ConfStep::AddVoter(_) => 0,
                ConfStep::Remove(_) => 1,
                ConfStep::AddLearner(_) => 2,
            });
            out.put_bytes(0, 7);
            out.put_u64_le(step.peer().0);
        }
        out.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ConfError> {
        let head = bytes.get(..CHANGE_HEAD_BYTES).ok_or(ConfError::Length(bytes.len()))?;
        if head[0] != VERSION {
            return Err(ConfError::Version(head[0]));
        }
        let n = usize::from(head[2]);
        if n > STEPS_MAX || bytes.len() != CHANGE_HEAD_BYTES + STEP_BYTES * n {
            return Err(ConfError::Length(bytes.len()));
        }
        if head[1] != EXPLICIT || head[3..] != [0; 5] {
            return Err(ConfError::Zero);
        }
        let steps = bytes[CHANGE_HEAD_BYTES..].chunks_exact(STEP_BYTES).map(|c| {
            let mut id = [0; 8];
            id.copy_from_slice(&c[8..]);
            let peer = PeerId(u64::from_le_bytes(id));
            match c[0] {
                _ if c[1..8] != [0; 7] => Err(ConfError::Zero),
                _ if peer == PeerId(0) => Err(ConfError::Peer),
                0 => Ok(ConfStep::AddVoter(peer)),
                1 => Ok(ConfStep::Remove(peer)),
                2 => Ok(ConfStep::AddLearner(peer)),
                other => Err(ConfError::Step(other)),
            }
        });
        Ok(ConfChange { steps: steps.collect::<Result<_, _>>()? })
    }

    /// May a leader propose this in `now`?
    pub fn check(&self, now: &ConfState, leader: PeerId) -> Result<(), ConfRefused> {
        if self.steps.is_empty() {
            return if now.is_joint() { Ok(()) } else { Err(ConfRefused::NotJoint) };
        }
        if now.is_joint() {
            return Err(ConfRefused::Joint);
        }
        if self.steps.len() > STEPS_MAX {
            return Err(ConfRefused::TooMany);
        }
        for (i, step) in self.steps.iter().enumerate() {
            let peer = step.peer();
            if peer == PeerId(0) || self.steps[..i].iter().any(|s| s.peer() == peer) {
                return Err(ConfRefused::Peer(peer));
            }
            match step {
                ConfStep::Remove(_) | ConfStep::AddLearner(_) if peer == leader => {
                    return Err(ConfRefused::Leader(peer));
                }
                ConfStep::Remove(_) if !now.has(peer) => return Err(ConfRefused::NotMember(peer)),
                _ => {}
            }
        }
        if now.after(self).voters.is_empty() { Err(ConfRefused::NoVoter) } else { Ok(()) }
    }

    /// The crate's form of it; the crate reads it in this process only.
    pub(super) fn to_crate(&self) -> raft::eraftpb::ConfChangeV2 {
        use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType};
        let mut out = raft::eraftpb::ConfChangeV2::default();
        if self.steps.is_empty() {
            return out;
        }
        out.set_transition(ConfChangeTransition::Explicit);
        let single = |step: &ConfStep| {
            let mut s = ConfChangeSingle { node_id: step.peer().0, ..ConfChangeSingle::default() };
            s.set_change_type(match step {
                ConfStep::AddVoter(_) => ConfChangeType::AddNode,
                ConfStep::Remove(_) => ConfChangeType::RemoveNode,
                ConfStep::AddLearner(_) => ConfChangeType::AddLearnerNode,
            });
            s
        };
        out.set_changes(self.steps.iter().map(single).collect::<Vec<_>>().into());
        out
    }
}

impl ConfState {
    pub fn of_voters(voters: impl Into<Vec<PeerId>>) -> Self {
        ConfState { voters: voters.into(), ..ConfState::default() }
    }

    /// Two majorities decide until the leader leaves it.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
    /// Nobody else votes, in either half.
    pub fn is_sole(&self, peer: PeerId) -> bool {
        self.voters == [peer] && self.outgoing.iter().all(|p| *p == peer)
    }
    /// Takes part in any way.
    pub fn has(&self, peer: PeerId) -> bool {
        [&self.voters, &self.learners, &self.outgoing, &self.learners_next].into_iter().flatten().any(|p| *p == peer)
    }

    /// The members after `change`, in an order that only entries determine (ranks of elections hang on it). Changes of
    /// peers that are not there change nothing.
    #[must_use]
    pub fn after(&self, change: &ConfChange) -> ConfState {
        let mut next = self.clone();
        if change.steps.is_empty() {
            next.outgoing.clear();
            next.learners.append(&mut next.learners_next);
            return next;
        }
        next.outgoing = self.voters.clone();
        for step in &change.steps {
            let peer = step.peer();
            let learner = next.learners.contains(&peer);
            match step {
                ConfStep::AddLearner(_) if learner => continue,
                ConfStep::AddVoter(_) if next.voters.contains(&peer) => continue,
                _ => {}
            }
            for list in [&mut next.voters, &mut next.learners, &mut next.learners_next] {
                list.retain(|p| *p != peer);
            }
            match step {
                ConfStep::AddVoter(_) => next.voters.push(peer),
                ConfStep::AddLearner(_) if next.outgoing.contains(&peer) => next.learners_next.push(peer),
                ConfStep::AddLearner(_) => next.learners.push(peer),
                ConfStep::Remove(_) => {}
            }
        }
        next
    }

    /// The same members, in whatever order.
    pub(super) fn agrees(&self, theirs: &raft::eraftpb::ConfState) -> bool {
        let same = |ours: &[PeerId], theirs: &[u64]| {
            let mut ours: Vec<u64> = ours.iter().map(|p| p.0).collect();
            let mut theirs = theirs.to_vec();
            ours.sort_unstable();
            theirs.sort_unstable();
            ours == theirs
        };
        same(&self.voters, theirs.get_voters())
            && same(&self.learners, theirs.get_learners())
            && same(&self.outgoing, theirs.get_voters_outgoing())
            && same(&self.learners_next, theirs.get_learners_next())
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

    /// Page `docs/formats/entry-context.md`.
    #[test]
    fn golden_change_bytes() {
        let p = PeerId::new(NodeId(2), 1);
        let change = ConfChange::of([ConfStep::AddVoter(p), ConfStep::Remove(PeerId::new(NodeId(1), 1))]);
        let mut want = vec![1, 2, 2, 0, 0, 0, 0, 0];
        want.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        want.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(change.encode(), &want[..]);
        assert_eq!(ConfChange::decode(&want).unwrap(), change);
        assert_eq!(ConfChange::decode(&ConfChange::leave().encode()).unwrap(), ConfChange::leave());
        let check = |at: usize, value: u8, error: ConfError| {
            let mut bad = want.clone();
            bad[at] = value;
            assert_eq!(ConfChange::decode(&bad), Err(error));
        };
        check(0, 2, ConfError::Version(2));
        check(1, 0, ConfError::Zero);
        check(2, 200, ConfError::Length(40));
        check(8, 3, ConfError::Step(3));
        check(9, 1, ConfError::Zero);
    }

    #[test]
    fn a_change_goes_through_joint_and_keeps_the_order() {
        let p = PeerId;
        let change = |steps: &[ConfStep]| ConfChange::of(steps);
        let start = ConfState { learners: vec![p(4)], ..ConfState::of_voters([p(3), p(1), p(2)]) };
        let joint = start.after(&change(&[ConfStep::AddVoter(p(4)), ConfStep::Remove(p(1))]));
        assert_eq!(joint.voters, vec![p(3), p(2), p(4)]);
        assert_eq!(joint.outgoing, vec![p(3), p(1), p(2)]);
        let after = joint.after(&ConfChange::leave());
        assert_eq!(after, ConfState::of_voters([p(3), p(2), p(4)]));
        let demoted = start.after(&change(&[ConfStep::AddLearner(p(2))]));
        assert_eq!((demoted.learners.clone(), demoted.learners_next.clone()), (vec![p(4)], vec![p(2)]));
        assert_eq!(demoted.after(&ConfChange::leave()).learners, vec![p(4), p(2)]);
        let refused = |steps: &[ConfStep], state: &ConfState| change(steps).check(state, p(3)).unwrap_err();
        assert_eq!(refused(&[ConfStep::Remove(p(3))], &start), ConfRefused::Leader(p(3)));
        assert_eq!(refused(&[ConfStep::AddLearner(p(3))], &start), ConfRefused::Leader(p(3)));
        assert_eq!(refused(&[ConfStep::Remove(p(9))], &start), ConfRefused::NotMember(p(9)));
        assert_eq!(refused(&[ConfStep::Remove(p(1)), ConfStep::AddVoter(p(1))], &start), ConfRefused::Peer(p(1)));
        assert_eq!(refused(&[ConfStep::Remove(p(1))], &joint), ConfRefused::Joint);
        assert_eq!(refused(&[], &start), ConfRefused::NotJoint);
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
