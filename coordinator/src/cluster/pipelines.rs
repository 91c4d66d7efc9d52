//! Pure. Stored pipelines: text and revision, and the tasks they make.

use catchwater_record::{CaptureId, PipelineName, RevisionNo};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineChange {
    /// The same text and nodes again change nothing. `base` = the revision it was planned against, 0 = new.
    Put {
        name: PipelineName,
        base: RevisionNo,
        text: String,
        captures: Vec<(String, CaptureId)>,
        sinks: Vec<String>,
    },
    Pause {
        name: PipelineName,
    },
    Resume {
        name: PipelineName,
    },
    Delete {
        name: PipelineName,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    #[error("revision {have} is newer than the base {base}")]
    StaleBase { base: RevisionNo, have: RevisionNo },
    #[error("pipeline {0} does not exist")]
    Unknown(PipelineName),
    #[error("capture {0} belongs to pipeline {1}")]
    CaptureTaken(CaptureId, PipelineName),
    #[error("{0} is named twice")]
    Twice(String),
    #[error("capture {0} is not known; ask for its source name first")]
    UnknownCapture(CaptureId),
}
