//! Pure. Numbers of the codes this connector shows; each has a page in `docs/errors/`. Sources 0501–0549, sinks
//! 0601–0649. A number is never used for another fault.

pub mod source {
    pub const UNREACHABLE: u16 = 501;
    pub const AUTH: u16 = 502;
    pub const NO_DATABASE: u16 = 503;
    pub const TLS: u16 = 504;
    pub const LOST: u16 = 505;
    pub const WAL_LEVEL: u16 = 506;
    pub const NO_FREE_SLOT: u16 = 507;
    pub const NO_FREE_SENDER: u16 = 508;
    pub const NO_REPLICATION_RIGHT: u16 = 509;
    pub const NO_PUBLICATION_RIGHT: u16 = 510;
    pub const NO_TABLE: u16 = 511;
    pub const NO_IDENTITY: u16 = 512;
    pub const TABLE_KIND: u16 = 513;
    pub const SLOT_MISSING: u16 = 514;
    pub const SLOT_AHEAD: u16 = 515;
    pub const SLOT_LOST: u16 = 516;
    pub const OTHER_SERVER: u16 = 517;
    pub const TIMELINE: u16 = 518;
    pub const SLOT_IN_USE: u16 = 519;
    pub const SLOT_FOREIGN: u16 = 520;
    pub const PUBLICATION: u16 = 521;
    pub const ROW_TOO_LARGE: u16 = 522;
    pub const NOT_UNDERSTOOD: u16 = 523;
    pub const NOT_UTF8: u16 = 524;
    pub const TOO_OLD: u16 = 525;
    pub const URL: u16 = 526;
    pub const NO_SELECT: u16 = 527;
    pub const STATEMENT: u16 = 528;
    pub const OLD_TRANSACTION: u16 = 529;
    pub const SNAPSHOT_GONE: u16 = 530;
    pub const EXPOSED: u16 = 531;
    pub const SPILL: u16 = 532;
    pub const NO_FAILOVER: u16 = 533;
    pub const INITIAL_STATEMENT: u16 = 534;
    pub const GUARDRAIL: u16 = 535;
    pub const PARTITION: u16 = 536;
}
pub mod sink {
    pub const UNREACHABLE: u16 = 601;
    pub const AUTH: u16 = 602;
    pub const NO_DATABASE: u16 = 603;
    pub const TLS: u16 = 604;
    pub const LOST: u16 = 605;
    pub const FENCED: u16 = 606;
    pub const FOREIGN_CLUSTER: u16 = 607;
    pub const UNKNOWN_OUTCOME: u16 = 608;
    pub const ROW: u16 = 609;
    pub const SCHEMA: u16 = 610;
    pub const RIGHTS: u16 = 611;
    pub const READ_ONLY: u16 = 612;
    pub const CONFLICT: u16 = 613;
    pub const MOVED: u16 = 614;
    pub const ROW_MISSING: u16 = 615;
    pub const POSITION_TABLE: u16 = 616;
    pub const SERVER: u16 = 617;
    pub const STATEMENT: u16 = 618;
    pub const LOCKED: u16 = 619;
    pub const URL: u16 = 620;
    pub const MISUSE: u16 = 621;
}
