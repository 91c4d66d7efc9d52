//! Pure. Settings of topics and brokers: every key with type, default, rule and text, and how a value is found.

use super::image::ConfigKey;

/// One resource and what shall become of its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub of: ConfigKey,
    pub how: ConfigHow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigHow {
    /// AlterConfigs: these and no others.
    Replace(Vec<(String, Option<String>)>),
    /// IncrementalAlterConfigs.
    Steps(Vec<(String, ConfigStep)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigStep {
    Set(String),
    Delete,
    /// Lists only.
    Append(String),
    /// Lists only.
    Subtract(String),
}

/// Why settings were refused; the resource keeps what it had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown config name: {0}")]
    UnknownKey(String),
    #[error("invalid value {value} for configuration {key}: {why}")]
    Value { key: String, value: String, why: String },
    #[error("null value not supported for config {0}")]
    Null(String),
    #[error("config {0} appears more than once in the request")]
    Twice(String),
    #[error("config {0} is not a list: append and subtract need one")]
    NotAList(String),
    #[error("config {0} can only be set in the node's configuration file")]
    ReadOnly(String),
    #[error("{0} does not exist")]
    UnknownResource(String),
}
