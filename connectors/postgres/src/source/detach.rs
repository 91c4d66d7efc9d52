//! Removing slot and publication that a thrown-away log made. The log's IDENTITY proves that they are ours: the slot's
//! name stands in it only if no slot of that name was there before, and the publication has a mark of its own.

use super::slot::{self, Verdict};
use super::{SourceConfig, login, open, source_error};
use crate::codes::source as code;
use crate::config::{quote_ident, quote_literal};
use catchwater_capture::source::{Identity, SourceClass, SourceError, identity_tag as tag};
use catchwater_runtime::time::sleep;
use std::time::Duration;

/// Looks at a slot whose WAL sender is about to end; the caller's limit is shorter.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

fn slot_is_ours(config: &SourceConfig, identity: &Identity) -> bool {
    identity.tags.get(&tag::SLOT).is_some_and(|s| s == config.slot().as_bytes())
}

fn publication_is_ours(config: &SourceConfig, identity: &Identity) -> bool {
    slot_is_ours(config, identity)
        && identity.tags.contains_key(&tag::PUBLICATION_MADE)
        && identity.tags.get(&tag::PUBLICATION).is_some_and(|p| p == config.publication().as_bytes())
}

pub(super) fn sql(config: &SourceConfig, identity: &Identity) -> String {
    remove_sql(config, slot_is_ours(config, identity), publication_is_ours(config, identity))
}

/// What a person runs in the source's database.
pub(super) fn remove_sql(config: &SourceConfig, slot: bool, publication: bool) -> String {
    let slot = slot.then(|| format!("SELECT pg_drop_replication_slot({});", quote_literal(&config.slot())));
    let publication =
        publication.then(|| format!("DROP PUBLICATION IF EXISTS {};", quote_ident(&config.publication())));
    slot.into_iter().chain(publication).collect::<Vec<_>>().join(" ")
}

/// The slot first: it reads by the publication.
pub(super) async fn run(config: &SourceConfig, identity: &Identity) -> Result<(), SourceError> {
    if !slot_is_ours(config, identity) {
        return Ok(());
    }
    let session = login::session(config).await?;
    drop_slot(config, &session).await?;
    if publication_is_ours(config, identity) {
        let drop = format!("DROP PUBLICATION IF EXISTS {}", quote_ident(&config.publication()));
        session.client.batch_execute(&drop).await.map_err(|e| source_error(config, e.into()))?;
    }
    Ok(())
}

async fn drop_slot(config: &SourceConfig, session: &crate::session::Session) -> Result<(), SourceError> {
    let mut ended = false;
    for _ in 0..TRIES {
        let Some(row) = open::slot_row(config, session).await? else { return Ok(()) };
        if row.plugin != "pgoutput" || row.database != config.connect.database {
            // Dropped and made by somebody else meanwhile.
            return Ok(());
        }
        if row.active_pid.is_none() {
            let dropped =
                session.client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&config.slot()]).await;
            match dropped {
                Ok(_) => return Ok(()),
                // Taken between the two statements.
                Err(e) if e.code().is_some_and(|c| c.code() == "55006") => {}
                Err(e) => return Err(source_error(config, e.into())),
            }
        } else {
            // Foreign holders end here.
            let verdict = slot::judge(
                &config.slot(),
                Some(&row),
                &config.connect.database,
                None,
                config.source.as_str(),
                config.epoch,
            )?;
            // Our worker has said good-bye; one that could not is ended after a moment.
            if let Verdict::OursBefore { pid } = verdict
                && !std::mem::replace(&mut ended, true)
            {
                sleep(PAUSE).await;
                let done = session.client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await;
                done.map_err(|e| source_error(config, e.into()))?;
            }
        }
        sleep(PAUSE).await;
    }
    let what = format!("replication slot {} is still in use", config.slot());
    Err(SourceError::new(SourceClass::Retry, code::SLOT_IN_USE, what, ""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ConnectConfig;
    use bytes::Bytes;
    use catchwater_record::CaptureEpoch;

    #[test]
    fn only_what_the_identity_names_is_ours() {
        let connect = ConnectConfig::parse("postgres://u@localhost/shop").unwrap();
        let mut config = SourceConfig::new("shop".into(), CaptureEpoch(1), connect, Vec::new());
        let mut identity = Identity::default();
        assert_eq!(sql(&config, &identity), "");
        identity.tags.insert(tag::PUBLICATION_MADE, Bytes::new());
        assert_eq!(sql(&config, &identity), "", "a slot of that name was there before");
        identity.tags.insert(tag::SLOT, Bytes::from("catchwater_shop"));
        identity.tags.insert(tag::PUBLICATION, Bytes::from("catchwater_shop"));
        assert_eq!(
            sql(&config, &identity),
            "SELECT pg_drop_replication_slot('catchwater_shop'); DROP PUBLICATION IF EXISTS \"catchwater_shop\";"
        );
        identity.tags.remove(&tag::PUBLICATION_MADE);
        assert_eq!(sql(&config, &identity), "SELECT pg_drop_replication_slot('catchwater_shop');");
        config.slot = Some("another".into());
        assert_eq!(sql(&config, &identity), "");
    }
}
