//! Which local lines can be traced: those whose place in some build has code, by the line tables of the builds that run.
//!
//! A build never changes, so its tables are asked for once and kept. Where nobody can be asked (an agent that does not
//! answer in time), the text of the build decides: its lines are told though some of them may have no code.

use super::fleet::{FleetSession, LinesFailure};
use super::limits::{LINE_TABLE_ROUNDS_MAX, LINE_TABLES_MAX, LINE_TABLES_WAIT};
use crate::lines::{InBuild, LineMapper, NotThere};
use riptrace_protocol::fleet::BuildFacts;
use riptrace_protocol::ids::BuildId;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// A file of a build, as it is asked for.
type File = (BuildId, String);
/// Its lines with code; asked for once, whoever comes second waits.
type Table = Arc<OnceCell<Arc<BTreeSet<u32>>>>;

/// The line tables that were asked for.
#[derive(Default)]
pub(super) struct LineTables {
    known: Mutex<HashMap<File, Table>>,
}

impl LineTables {
    /// The lines of a local file between two that some build has code for, in order.
    pub(super) async fn traceable(
        &self,
        mapper: &LineMapper,
        session: Option<Arc<dyn FleetSession>>,
        path: &Path,
        range: RangeInclusive<u32>,
        builds: &[BuildFacts],
    ) -> Vec<u32> {
        let places = match mapper.lines_in_builds(path, range.clone(), None, builds).await {
            Ok(places) => places,
            // A file of another machine: its lines are taken as they are.
            Err(NotThere::Unreadable { .. }) => return range.collect(),
            Err(why) => {
                tracing::debug!("lines of {}: {why}", path.display());
                return Vec::new();
            }
        };
        let mut lines = BTreeSet::new();
        for InBuild { build, file, lines: there } in places {
            let table = self.table(session.as_deref(), build, file);
            let with_code = match tokio::time::timeout(LINE_TABLES_WAIT, table).await {
                Ok(Ok(table)) => Some(table),
                // The build does not have the file.
                Ok(Err(LinesFailure::Refused(why))) => {
                    tracing::debug!("lines of {}: {why}", path.display());
                    continue;
                }
                Ok(Err(LinesFailure::Unknown(why))) => {
                    tracing::info!("the text of {} decides which lines can be traced: {why}", path.display());
                    None
                }
                Err(_) => None,
            };
            let has_code = |line: &u32| with_code.as_ref().is_none_or(|table| table.contains(line));
            lines.extend(there.into_iter().filter(|(_, line)| has_code(line)).map(|(local, _)| local));
        }
        lines.into_iter().collect()
    }

    async fn table(
        &self,
        session: Option<&dyn FleetSession>,
        build: BuildId,
        file: String,
    ) -> Result<Arc<BTreeSet<u32>>, LinesFailure> {
        let session = session.ok_or_else(|| LinesFailure::Unknown("there is no fleet to ask".to_owned()))?;
        let table = {
            // Each holder does one lookup or insertion.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= LINE_TABLES_MAX {
                known.clear();
            }
            Arc::clone(known.entry((build.clone(), file.clone())).or_default())
        };
        // What failed is asked again by the next one.
        table.get_or_try_init(|| read(session, build, file)).await.cloned()
    }
}

/// All lines of a file that have code, part after part.
async fn read(session: &dyn FleetSession, build: BuildId, file: String) -> Result<Arc<BTreeSet<u32>>, LinesFailure> {
    let mut lines = BTreeSet::new();
    for _ in 0..LINE_TABLE_ROUNDS_MAX {
        let first = lines.last().map_or(1, |last: &u32| last.saturating_add(1));
        let reply = session.lines(build.clone(), file.clone(), first, u32::MAX).await?;
        let came = reply.lines.len();
        lines.extend(reply.lines.into_iter().map(|facts| facts.line));
        if !reply.more || came == 0 {
            break;
        }
    }
    Ok(Arc::new(lines))
}
