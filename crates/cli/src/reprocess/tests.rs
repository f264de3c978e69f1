//! The law: what the stream wrote = what a reprocessing writes = what a second one writes; and after a change of the file
//! what a reprocessing writes = what the stream would have written.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use twinlake_contracts::parse_us;

use super::*;
use crate::arguments::Global;

/// A small generator: SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A capture: a message a second, some late, some doubled, some broken, some with wild values.
pub(super) fn capture(count: u64, seed: u64) -> String {
    let mut numbers = Numbers(seed);
    let mut text = String::new();
    for second in 0..count {
        let received = 1_539_059_521 + second;
        let late = if numbers.below(7) == 0 { numbers.below(40) } else { 0 };
        let ts = if numbers.below(9) == 0 { second / 2 } else { second.saturating_sub(late) };
        let value = match numbers.below(12) {
            0 => 5_000,
            _ => numbers.below(60),
        };
        let time = format_us(received as i64 * 1_000_000);
        let event = format_us((1_539_059_521 + ts) as i64 * 1_000_000);
        let device = numbers.below(4);
        let payload = match numbers.below(25) {
            0 => "{\"device\":".to_owned(),
            1 => "{\"device\":\"d\"}".to_owned(),
            _ => format!("{{\"device\":\"d{device}\",\"ts\":\"{event}\",\"value\":{value}}}"),
        };
        let _ = writeln!(text, "{time} plant/{device} {payload}");
    }
    text
}

/// Steps of a pipeline from `decoded` on; the last is `last`.
const CHAINS: [(&str, bool); 4] = [
    // Nothing is remembered.
    (
        "[transforms.last]\ntype = \"clean\"\ninputs = [\"decoded\"]\nrequire = [\"value\"]\nrange = { value = [0, LIMIT] }\n",
        false,
    ),
    (
        "[transforms.last]\ntype = \"clean\"\ninputs = [\"decoded\"]\nkey = [\"device\"]\nrange = { value = [0, LIMIT] }\n\
         dedup = { by = [\"device\", \"ts\"] }\nspike = { value = { window = 5 } }\ndead_band = { value = { absolute = 2 } }\n",
        true,
    ),
    // Rows are held back and come out of their order.
    (
        "[transforms.ordered]\ntype = \"late\"\ninputs = [\"decoded\"]\nkey = [\"device\"]\nallowed_lateness = \"20s\"\norder = true\n\
         [transforms.last]\ntype = \"clean\"\ninputs = [\"ordered\"]\nkey = [\"device\"]\nrange = { value = [0, LIMIT] }\n\
         spike = { value = { window = 3, centred = true } }\n",
        true,
    ),
    // Rows of many messages become one.
    (
        "[transforms.sound]\ntype = \"clean\"\ninputs = [\"decoded\"]\nrange = { value = [0, LIMIT] }\n\
         [transforms.last]\ntype = \"window\"\ninputs = [\"sound\"]\nkey = [\"device\"]\nkind = \"tumbling\"\nsize = \"30s\"\n\
         allowed_lateness = \"10s\"\naggregates = { mean = { function = \"mean\", column = \"value\" }, n = { function = \"count\" } }\n",
        true,
    ),
];

pub(super) fn file(chain: &str, limit: u32) -> String {
    format!(
        "name = \"plant\"\n[settings]\nmicro_batch_messages = 64\nmax_uncommitted_rows = 150\n\
         [sources.reading]\ntype = \"files\"\npath = \"readings.txt\"\nline = \"time topic payload\"\n\
         decoder = {{ type = \"json\", columns = {{ device = {{ type = \"utf8\", required = true }}, ts = {{ type = \"utf8\" }}, value = {{ type = \"float64\" }} }} }}\n\
         [transforms.decoded]\ntype = \"sql\"\ninputs = [\"reading\"]\nquery = \"SELECT device, to_timestamp(ts) AS ts, value FROM input WHERE ts IS NOT NULL\"\n\
         {}[sinks.out]\ntype = \"lake\"\ninputs = [\"last\"]\ntable = \"plant.out\"\n",
        chain.replace("LIMIT", &limit.to_string())
    )
}

async fn town(folder: &Path) -> (Settings, Town) {
    let lake = folder.join("lake").to_str().unwrap().to_owned();
    let global = Global {
        engine: None,
        lake: Some(lake),
        config: None,
        node: None,
        lineage_url: None,
        who: None,
        verbose: 0,
        no_progress: true,
    };
    let settings = Settings::resolve(&global).unwrap();
    let town = Town::open(&settings).await.unwrap();
    (settings, town)
}

pub(super) async fn stream(folder: &Path) {
    let (_, town) = town(folder).await;
    let plan = pipelines::load(&folder.join("plant.toml"), &town.engine, &[]).await.unwrap();
    pipelines::start(&town, plan).await.unwrap().finish().await.unwrap();
    town.lake.close().await.unwrap();
}

/// Every row of both tables, in a fixed order.
pub(super) async fn content(folder: &Path) -> Vec<String> {
    let (_, town) = town(folder).await;
    let mut rows = Vec::new();
    for sql in [
        "SELECT * FROM plant.out",
        "SELECT _sequence, _ingested_at, component, reason, detail, origin, payload FROM meta.rejects",
    ] {
        for batch in town.engine.read_tables(sql).await.unwrap() {
            let columns: Vec<_> = batch.columns().to_vec();
            for row in 0..batch.num_rows() {
                let values = columns
                    .iter()
                    .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                rows.push(values.collect::<Vec<_>>().join("|"));
            }
        }
    }
    rows.sort();
    rows
}

pub(super) fn choice(folder: &Path) -> ReprocessOptions {
    ReprocessOptions {
        file: folder.join("plant.toml"),
        from: None,
        to: None,
        condition: None,
        dry_run: false,
        parallel: NonZeroUsize::MIN,
        warm_up: None,
        stale: false,
        downstream: false,
        piece: 150,
        json: false,
    }
}

pub(super) async fn reprocess(folder: &Path, options: &ReprocessOptions) -> ReprocessReport {
    let (_, town) = town(folder).await;
    let plan = pipelines::load(&options.file, &town.engine, &[]).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    prepare(&town, plan, options).run(stopped).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_reprocess_and_reprocess_again_give_the_same_rows() {
    for (number, (chain, remembers)) in CHAINS.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("readings.txt"), capture(700, number as u64)).unwrap();
        fs::write(folder.join("plant.toml"), file(chain, 100)).unwrap();
        stream(folder).await;
        let streamed = content(folder).await;
        assert!(streamed.len() > 40, "chain {number}: {} rows", streamed.len());

        let whole = choice(folder);
        let report = reprocess(folder, &whole).await;
        // Every message and, where rows are held back, the end of the input.
        assert!((700..=701).contains(&report.messages), "chain {number}: {}", report.messages);
        let changed = &report.tables["plant.out"];
        assert!(
            changed.rows_gone > 0 && changed.rows_gone == changed.rows_come,
            "chain {number}: {changed:?}"
        );
        assert_eq!(content(folder).await, streamed, "chain {number}: the whole");

        let some = ReprocessOptions {
            from: parse_us("2018-10-09T04:34:00Z"),
            to: parse_us("2018-10-09T04:39:30Z"),
            parallel: NonZeroUsize::new(3).unwrap(),
            ..choice(folder)
        };
        for again in 0..2 {
            let report = reprocess(folder, &some).await;
            assert_eq!(report.messages, 330, "chain {number}");
            assert_eq!(report.replayed < 400, !remembers, "chain {number}: {}", report.replayed);
            assert_eq!(content(folder).await, streamed, "chain {number}: an interval, {again}");
        }
        let condition = Some("origin = 'plant/2' AND ordinal % 2 = 0".to_owned());
        let report = reprocess(folder, &ReprocessOptions { condition, ..choice(folder) }).await;
        assert!(report.messages > 30 && report.messages < 150, "chain {number}: {}", report.messages);
        assert_eq!(content(folder).await, streamed, "chain {number}: a condition");

        // Another file: as if the stream had run it from the start.
        fs::write(folder.join("plant.toml"), file(chain, 30)).unwrap();
        reprocess(folder, &choice(folder)).await;
        let corrected = content(folder).await;
        assert_ne!(corrected, streamed, "chain {number}");
        let other = tempfile::tempdir().unwrap();
        fs::copy(folder.join("readings.txt"), other.path().join("readings.txt")).unwrap();
        fs::write(other.path().join("plant.toml"), file(chain, 30)).unwrap();
        stream(other.path()).await;
        assert_eq!(corrected, content(other.path()).await, "chain {number}: corrected");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_one_goes_on_and_changes_nothing_before_its_end() {
    for (chain, _) in [CHAINS[0], CHAINS[2]] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("readings.txt"), capture(700, 77)).unwrap();
        fs::write(folder.join("plant.toml"), file(chain, 100)).unwrap();
        stream(folder).await;
        let streamed = content(folder).await;
        fs::write(folder.join("plant.toml"), file(chain, 30)).unwrap();
        let options = choice(folder);
        for _ in 0..2 {
            let (_, town) = town(folder).await;
            let plan = pipelines::load(&options.file, &town.engine, &[]).await.unwrap();
            // Told to stop from the start: it ends after its first piece.
            let (_stop, stopped) = watch::channel(true);
            let error = prepare(&town, plan, &options).run(stopped).await.unwrap_err().to_string();
            assert!(error.contains("no table has changed"), "{error}");
            assert_eq!(content(folder).await, streamed);
        }
        let report = reprocess(folder, &options).await;
        assert!(report.resumed && report.replayed == 700, "{report:?}");
        let other = tempfile::tempdir().unwrap();
        fs::copy(folder.join("readings.txt"), other.path().join("readings.txt")).unwrap();
        fs::write(other.path().join("plant.toml"), file(chain, 30)).unwrap();
        stream(other.path()).await;
        assert_eq!(content(folder).await, content(other.path()).await);
        let next = reprocess(folder, &options).await;
        assert!(!next.resumed && next.run_id != report.run_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("readings.txt"), capture(300, 5)).unwrap();
    fs::write(folder.join("plant.toml"), file(CHAINS[1].0, 100)).unwrap();
    stream(folder).await;
    let (_, town) = town(folder).await;
    let versions = || town.lake.tables().iter().map(|table| table.version()).collect::<Vec<_>>();
    let before = versions();
    let plan = pipelines::load(&folder.join("plant.toml"), &town.engine, &[]).await.unwrap();
    let from = parse_us("2018-10-09T04:34:00Z");
    let options = ReprocessOptions { from, ..choice(folder) };
    let estimate = prepare(&town, plan, &options).estimate().await.unwrap();
    assert_eq!((estimate.messages, estimate.replayed, estimate.remembers), (181, 300, true), "{estimate:?}");
    assert!(estimate.tables["plant.out"].rows_gone > 10 && estimate.seconds > 0.0, "{estimate:?}");
    assert!(tell_estimate(&estimate).ends_with("nothing has changed"));
    assert_eq!(versions(), before);

    let plan = pipelines::load(&folder.join("plant.toml"), &town.engine, &[]).await.unwrap();
    let condition = Some("orgin = 'x'".to_owned());
    let wrong = prepare(&town, plan, &ReprocessOptions { condition, ..choice(folder) }).estimate().await;
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains("condition") && wrong.contains("orgin"), "{wrong}");
}

/// The aggregates alone: which message completed a window depends on how long it waited.
async fn windows(folder: &Path) -> Vec<String> {
    let (_, town) = town(folder).await;
    let sql = "SELECT device, window_start, window_end, mean, n FROM plant.out";
    let mut rows = Vec::new();
    for batch in town.engine.read_tables(sql).await.unwrap() {
        for row in 0..batch.num_rows() {
            let value = |column: &arrow::array::ArrayRef| {
                arrow::util::display::array_value_to_string(column, row).unwrap()
            };
            rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join("|"));
        }
    }
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_too_late_is_taken_in_as_if_more_lateness_had_been_allowed() {
    let late = "[transforms.ordered]\ntype = \"late\"\ninputs = [\"decoded\"]\nkey = [\"device\"]\n\
                allowed_lateness = \"5s\"\norder = true\n";
    let after = CHAINS[3].0.replace("[\"decoded\"]", "[\"ordered\"]");
    let generous = "allowed_lateness = \"2h\"";
    for chain in [CHAINS[3].0.to_owned(), format!("{late}{after}")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("readings.txt"), capture(700, 11)).unwrap();
        fs::write(folder.join("plant.toml"), file(&chain, 100)).unwrap();
        stream(folder).await;
        let streamed = windows(folder).await;
        let stale = ReprocessOptions { stale: true, ..choice(folder) };
        let report = reprocess(folder, &stale).await;
        assert_eq!(report.replayed, 700, "{report:?}");
        let now = windows(folder).await;
        assert_ne!(now, streamed, "late rows change windows");
        let left = content(folder).await;
        assert!(!left.iter().any(|row| row.contains("|late|")), "some are still refused as late");

        let other = tempfile::tempdir().unwrap();
        fs::copy(folder.join("readings.txt"), other.path().join("readings.txt")).unwrap();
        let chain = chain
            .replace("allowed_lateness = \"10s\"", generous)
            .replace("allowed_lateness = \"5s\"", generous);
        fs::write(other.path().join("plant.toml"), file(&chain, 100)).unwrap();
        stream(other.path()).await;
        assert_eq!(now, windows(other.path()).await);
        assert_eq!(reprocess(folder, &stale).await.messages, 0, "nothing is late any more");
    }
}
