//! The memory of queries: shared fairly among operators that can spill, but for partial aggregates.
//!
//! A partial aggregate only saves work for the one that follows: it may give on what it has at any time. Beyond the
//! processor's caches it saves little, since each row then waits for memory twice. So it gets a small amount of its own
//! and gives on its groups when that is full (as the thread-local tables of Leis et al. 2014, "Morsel-driven
//! parallelism", section 4.4); all else is left to the operators that need it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// What the groups of one partition of a partial aggregate may take.
const PARTIAL_BYTES: usize = 16 << 20;
/// How DataFusion's partial aggregates call themselves.
const PARTIAL: &str = "PartialHashAggregateStream";

/// A pool that holds partial aggregates to [`PARTIAL_BYTES`] each and leaves everything else to another pool.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    others: Arc<dyn MemoryPool>,
    /// What partial aggregates hold.
    partial: AtomicUsize,
}

impl QueryMemory {
    pub(crate) fn new(others: Arc<dyn MemoryPool>) -> Self {
        Self { others, partial: AtomicUsize::new(0) }
    }
}

fn is_partial(consumer: &MemoryConsumer) -> bool {
    consumer.name().starts_with(PARTIAL)
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.others)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "query_memory"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if !is_partial(consumer) {
            self.others.register(consumer);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if !is_partial(consumer) {
            self.others.unregister(consumer);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if is_partial(reservation.consumer()) {
            self.partial.fetch_add(additional, Ordering::Relaxed);
        } else {
            self.others.grow(reservation, additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if is_partial(reservation.consumer()) {
            self.partial.fetch_sub(shrink, Ordering::Relaxed);
        } else {
            self.others.shrink(reservation, shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if !is_partial(reservation.consumer()) {
            return self.others.try_grow(reservation, additional);
        }
        // The aggregate takes this as the sign to give on its groups.
        if reservation.size().saturating_add(additional) > PARTIAL_BYTES {
            return Err(resources_datafusion_err!("a partial aggregate holds at most {PARTIAL_BYTES} bytes"));
        }
        self.partial.fetch_add(additional, Ordering::Relaxed);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.others.reserved() + self.partial.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.others.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::FairSpillPool;

    #[test]
    fn partial_aggregates_take_nothing_from_the_others() {
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryMemory::new(Arc::new(FairSpillPool::new(1000))));
        let consumer = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let partial = consumer("PartialHashAggregateStream[0]");
        partial.try_grow(PARTIAL_BYTES).unwrap();
        assert!(partial.try_grow(1).is_err());
        let whole = consumer("FinalHashAggregateStream[0]");
        whole.try_grow(1000).unwrap();
        assert!(whole.try_grow(1).is_err());
        assert_eq!(pool.reserved(), PARTIAL_BYTES + 1000);
        partial.try_resize(10).unwrap();
        drop(whole);
        assert_eq!(pool.reserved(), 10);
    }

    #[tokio::test]
    async fn groups_given_on_early_are_counted_once() {
        use datafusion::execution::runtime_env::RuntimeEnvBuilder;
        use datafusion::prelude::{SessionConfig, SessionContext};

        let pool = QueryMemory::new(Arc::new(FairSpillPool::new(1 << 30)));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().unwrap();
        let config = SessionConfig::new().with_target_partitions(2);
        let context = SessionContext::new_with_config_rt(config, runtime);
        let sql = "SELECT count(*) AS groups, sum(n) AS n, sum(s) AS s FROM (SELECT value / 3 AS k, count(*) AS n, \
                   sum(value) AS s FROM generate_series(0, 2999999) GROUP BY 1)";
        let found = context.sql(sql).await.unwrap().collect().await.unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&found).unwrap().to_string();
        assert!(shown.contains("| 1000000 | 3000000 | 4499998500000 |"), "{shown}");
    }
}
