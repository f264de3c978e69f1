//! How far a pipeline is completely committed, seen from outside: it may be running.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinlake_contracts::{Result, TableStore};

use crate::epoch::{identity_of, settled};
use crate::plan::Plan;

/// The last message whose rows are in every table. Makes no table.
pub(super) async fn cut(plan: &Plan, store: &Arc<dyn TableStore>) -> Result<u64> {
    let mut known = BTreeMap::new();
    for (key, writer, spec) in plan.message_tables() {
        if store.describe_table(&spec.name).await?.is_some() {
            known.insert(identity_of(&key, &spec.name), (writer, store.open_table(spec).await?));
        }
    }
    settled(&plan.pipeline.name, store, |identity| {
        let target = known.get(&identity).cloned();
        async move {
            match target {
                Some((writer, table)) => Ok(Some(table.committed(&writer).await?.unwrap_or(0))),
                None => Ok(None),
            }
        }
    })
    .await
}
