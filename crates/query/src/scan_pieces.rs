//! Large Parquet files in pieces, so that partitions which are done early take over from those which are not.
//!
//! DataFusion cuts a file of four row groups for two partitions at its middle byte; a row group belongs to the part in
//! which it begins, and the third one often begins just before the middle: one partition reads three, the other one.
//! Sibling partitions share a queue of what is left to read, so smaller pieces even this out.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

/// Pieces are no smaller than this: each one costs a look at the file's footer, which is cached.
const LEAST_BYTES: u64 = 32 << 20;
/// More pieces than this of one part bring nothing.
const MOST_PIECES: u64 = 16;

/// Cuts what each partition of a scan reads into pieces. It runs last, when the partitions are settled.
#[derive(Debug, Default)]
pub(crate) struct ScanPieces;

impl PhysicalOptimizerRule for ScanPieces {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.execution.enable_file_stream_work_stealing {
            return Ok(plan);
        }
        plan.transform_down(|plan| {
            let scan = plan.downcast_ref::<DataSourceExec>().and_then(|source| {
                let scan = source.data_source().downcast_ref::<FileScanConfig>()?;
                cut(scan)
            });
            Ok(match scan {
                Some(scan) => Transformed::yes(DataSourceExec::from_data_source(scan) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "scan_pieces"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The scan in pieces; `None` when it stays as it is: when the order of the files, or which partition reads which,
/// means something, and when there is nothing to cut.
fn cut(scan: &FileScanConfig) -> Option<FileScanConfig> {
    let fixed = scan.preserve_order || scan.output_partitioning.is_some() || !scan.output_ordering.is_empty();
    if fixed || scan.file_groups.len() < 2 || scan.file_source().downcast_ref::<ParquetSource>().is_none() {
        return None;
    }
    if !scan.file_groups.iter().flat_map(FileGroup::iter).any(|file| file.effective_size() >= 2 * LEAST_BYTES)
    {
        return None;
    }
    let groups = scan.file_groups.iter().map(|group| {
        let files: Vec<PartitionedFile> = group.iter().flat_map(pieces).collect();
        let statistics = group.file_statistics(None).cloned();
        let pieces = FileGroup::new(files);
        match statistics {
            Some(statistics) => pieces.with_statistics(Arc::new(statistics)),
            None => pieces,
        }
    });
    Some(FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups.collect()).build())
}

/// The parts of a file, or of a part of it, that together are the whole.
fn pieces(file: &PartitionedFile) -> Vec<PartitionedFile> {
    let (start, end) = file.range();
    let count = ((end - start) / LEAST_BYTES).clamp(1, MOST_PIECES);
    let place = |piece: u64| i64::try_from(start + (end - start) / count * piece).ok();
    let (Ok(last), true) = (i64::try_from(end), count > 1) else { return vec![file.clone()] };
    (0..count)
        .map(|piece| {
            let from = place(piece)?;
            let to = if piece + 1 == count { last } else { place(piece + 1)? };
            Some(file.clone().with_range(from, to))
        })
        .collect::<Option<_>>()
        .unwrap_or_else(|| vec![file.clone()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_cover_the_part() {
        let file = PartitionedFile::new("trip.parquet", 364_674_483);
        for part in [file.clone(), file.clone().with_range(182_337_242, 364_674_483)] {
            let cut = pieces(&part);
            assert!(cut.len() > 4);
            assert_eq!((cut[0].range().0, cut[cut.len() - 1].range().1), part.range());
            assert!(cut.windows(2).all(|pair| pair[0].range().1 == pair[1].range().0));
        }
        assert_eq!(pieces(&PartitionedFile::new("small.parquet", 40_000_000)).len(), 1);
    }
}
