//! What `EXPLAIN ANALYZE` tells of the join.

use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, SpillMetrics, Time,
};

#[derive(Debug, Clone)]
pub(super) struct JoinMetrics {
    pub baseline: BaselineMetrics,
    /// Rows of the side that is indexed.
    pub build_rows: Count,
    /// Time to read that side.
    pub build_time: Time,
    /// Time to index it.
    pub index_time: Time,
    /// The memory that its rows and the index take.
    pub build_mem_used: Gauge,
    /// Rows of the other side.
    pub probe_rows: Count,
    /// Pairs whose boxes are near enough.
    pub candidates: Count,
    /// Pairs for which the whole condition holds.
    pub matches: Count,
    /// Time to find pairs and to make output.
    pub join_time: Time,
    pub spill: SpillMetrics,
}

impl JoinMetrics {
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name| MetricBuilder::new(set).counter(name, partition);
        let time = |name| MetricBuilder::new(set).subset_time(name, partition);
        Self {
            baseline: BaselineMetrics::new(set, partition),
            build_rows: count("build_rows"),
            build_time: time("build_time"),
            index_time: time("index_time"),
            build_mem_used: MetricBuilder::new(set).gauge("build_mem_used", partition),
            probe_rows: count("probe_rows"),
            candidates: count("candidates"),
            matches: count("matches"),
            join_time: time("join_time"),
            spill: SpillMetrics::new(set, partition),
        }
    }
}
