//! The law over pipelines made by chance: however a stream is cut, its rows are the same; a reprocessing, whole or of an
//! interval, in one pass or several, once or twice, changes none of them.

use std::num::NonZeroUsize;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::tests::{capture, choice, content, file, reprocess, stream};
use super::*;

/// How the stream is cut.
#[derive(Debug, Clone)]
struct Cut {
    micro_batch: u64,
    uncommitted: u64,
}

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    /// Steps between `decoded` and `last`, as TOML.
    chain: String,
    cut: Cut,
    other_cut: Cut,
    piece: u64,
    parallel: usize,
    /// An interval of seconds after the first message.
    interval: (u32, u32),
}

fn cut() -> impl Strategy<Value = Cut> {
    (1_u64..120, 1_u64..300).prop_map(|(micro_batch, uncommitted)| Cut { micro_batch, uncommitted })
}

/// Options of a `clean` step, each there or not.
fn clean() -> impl Strategy<Value = String> {
    let option = |text: &'static str| prop::bool::ANY.prop_map(move |there| if there { text } else { "" });
    (
        option("range = { value = [0, 100] }\n"),
        option("dedup = { by = [\"device\", \"ts\"] }\n"),
        option("rate_of_change = { value = { max_per_second = 20 } }\n"),
        option("spike = { value = { window = 5 } }\n"),
        option("dead_band = { value = { absolute = 3 } }\n"),
    )
        .prop_map(|(range, dedup, rate, spike, band)| {
            format!("type = \"clean\"\nkey = [\"device\"]\nrequire = [\"value\"]\n{range}{dedup}{rate}{spike}{band}")
        })
}

fn step() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => clean(),
        1 => (1_u32..30).prop_map(|seconds| format!(
            "type = \"late\"\nkey = [\"device\"]\nallowed_lateness = \"{seconds}s\"\norder = true\n"
        )),
        1 => (2_u32..9).prop_map(|part| format!(
            "type = \"sql\"\nquery = \"SELECT device, ts, value + 0.5 AS value FROM input WHERE CAST(value AS BIGINT) % {part} > 0\"\n"
        )),
    ]
}

fn last() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => clean(),
        1 => (5_u32..60, 0_u32..20).prop_map(|(size, lateness)| format!(
            "type = \"window\"\nkey = [\"device\"]\nkind = \"tumbling\"\nsize = \"{size}s\"\nallowed_lateness = \"{lateness}s\"\n\
             aggregates = {{ mean = {{ function = \"mean\", column = \"value\" }}, n = {{ function = \"count\" }} }}\n"
        )),
    ]
}

/// Steps that follow one another; what comes after a `late` in order sees rows in order.
fn chain() -> impl Strategy<Value = String> {
    (prop::collection::vec(step(), 0..3), last()).prop_map(|(steps, last)| {
        let mut text = String::new();
        let mut input = "decoded".to_owned();
        for (number, step) in steps.iter().enumerate() {
            text.extend([&format!("[transforms.step{number}]\ninputs = [\"{input}\"]\n"), step.as_str()]);
            input = format!("step{number}");
        }
        text.extend([&format!("[transforms.last]\ninputs = [\"{input}\"]\n"), last.as_str()]);
        text
    })
}

fn case() -> impl Strategy<Value = Case> {
    (any::<u64>(), chain(), cut(), cut(), 20_u64..200, 1_usize..4, (0_u32..200, 1_u32..150)).prop_map(
        |(seed, chain, cut, other_cut, piece, parallel, (from, length))| Case {
            seed,
            chain,
            cut,
            other_cut,
            piece,
            parallel,
            interval: (from, from + length),
        },
    )
}

fn write(folder: &Path, case: &Case, cut: &Cut) {
    std::fs::write(folder.join("readings.txt"), capture(220, case.seed)).unwrap();
    let text = file(&case.chain, 100).replace(
        "micro_batch_messages = 64\nmax_uncommitted_rows = 150",
        &format!("micro_batch_messages = {}\nmax_uncommitted_rows = {}", cut.micro_batch, cut.uncommitted),
    );
    std::fs::write(folder.join("plant.toml"), text).unwrap();
}

async fn law(case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, case, &case.cut);
    stream(folder).await;
    let streamed = content(folder).await;

    let other = tempfile::tempdir().unwrap();
    write(other.path(), case, &case.other_cut);
    stream(other.path()).await;
    assert_eq!(content(other.path()).await, streamed, "cut otherwise");

    let parallel = NonZeroUsize::new(case.parallel).unwrap();
    let whole = ReprocessOptions { piece: case.piece, parallel, ..choice(folder) };
    for again in 0..2 {
        reprocess(folder, &whole).await;
        assert_eq!(content(folder).await, streamed, "reprocessed, {again}");
    }
    let at = |second: u32| Some((1_539_059_521 + i64::from(second)) * 1_000_000);
    let some = ReprocessOptions { from: at(case.interval.0), to: at(case.interval.1), ..whole };
    reprocess(folder, &some).await;
    assert_eq!(content(folder).await, streamed, "an interval");
}

#[test]
fn pipelines_made_by_chance_give_the_same_rows_streamed_and_reprocessed() {
    let cases = if std::env::var_os("TWINLAKE_LONG").is_some() { 200 } else { 12 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    let outcome = TestRunner::new(config).run(&case(), |case| {
        // A panic names the first difference; proptest makes the case smaller.
        runtime.block_on(law(&case));
        Ok(())
    });
    outcome.unwrap();
}

/// Pieces of 22 of 220 messages: the last one begins with the end of the input, which has the time of the message before it.
#[test]
fn a_piece_may_begin_with_the_end_of_the_input() {
    let chain = "[transforms.last]\ninputs = [\"decoded\"]\ntype = \"window\"\nkey = [\"device\"]\nkind = \"tumbling\"\n\
                 size = \"49s\"\nallowed_lateness = \"10s\"\n\
                 aggregates = { mean = { function = \"mean\", column = \"value\" }, n = { function = \"count\" } }\n";
    let case = Case {
        seed: 13_232_938,
        chain: chain.to_owned(),
        cut: Cut { micro_batch: 16, uncommitted: 269 },
        other_cut: Cut { micro_batch: 58, uncommitted: 151 },
        piece: 22,
        parallel: 2,
        interval: (131, 216),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build();
    runtime.unwrap().block_on(law(&case));
}
