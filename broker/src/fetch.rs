//! Fetch, in three steps: [`plan`] chooses what to send by offsets and sizes alone, [`wait`] decides whether that is
//! enough yet, [`write`] reads the bytes and hands them on as they are stored.

pub mod plan;
pub mod wait;
pub mod write;
