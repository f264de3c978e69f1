use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use twinlake_contracts::{
    BodyFormat, DATABASE, Delivery, Intake, IntakeError, MEASUREMENT, ORIGINAL_NAME, Precision, Receipt,
};

use super::fake_decoder::{Lines, content, json, lines, open, options};
use super::{DirectIngest, DirectOptions};
use crate::fakes::{Durable, FakeStore, Faults};

fn refused(receipt: &Receipt) -> Vec<(u64, &str, &str)> {
    let parts = receipt.parts.iter();
    parts.map(|part| (part.place, part.reason.as_ref(), std::str::from_utf8(&part.text).unwrap())).collect()
}

fn reason(error: &IntakeError) -> &str {
    match error {
        IntakeError::Busy { .. } => "busy",
        IntakeError::Refused { reason, .. } => reason,
        IntakeError::Failed(_) => "failed",
    }
}

#[tokio::test]
async fn rows_land_in_tables_that_are_made_and_grow() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let intake = open(&durable, Faults::none(), options()).await.unwrap();
    let first = intake.take(lines("CPU usage=1 host=a\nmem free=2", None)).await.unwrap();
    assert_eq!((first.rows, first.refused, first.repeated), (2, 0, false));
    let second = intake.take(lines("CPU usage=2 Load=0.5", None)).await.unwrap();
    assert_eq!(second.rows, 1);
    intake.stop().await.unwrap();
    let content = content(&durable);
    assert_eq!(
        content["plant.cpu"],
        [
            r#"{"ts":"1970-01-01T12:00:00Z","usage":1,"host":"a","_ingested_at":"1970-01-01T12:00:00Z"}"#,
            r#"{"ts":"1970-01-01T12:00:00Z","usage":2,"_ingested_at":"1970-01-01T12:00:00Z","load":0.5}"#,
        ]
    );
    assert_eq!(content["plant.mem"].len(), 1);
    assert!(content["meta.rejects"].is_empty());
    let durable = durable.lock().unwrap();
    let spec = &durable.specs["plant.cpu"];
    assert!(spec.description.contains("'CPU' of 'plant'"), "{}", spec.description);
    let metadata = spec.schema.field_with_name("ts").unwrap().metadata();
    assert_eq!((metadata[DATABASE].as_str(), metadata[MEASUREMENT].as_str()), ("plant", "CPU"));
    assert_eq!(spec.schema.field_with_name("load").unwrap().metadata()[ORIGINAL_NAME], "Load");
}

#[tokio::test]
async fn lines_that_do_not_fit_are_rejects_and_the_rest_lands() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let intake = open(&durable, Faults::none(), options()).await.unwrap();
    intake.take(lines("cpu v=1", None)).await.unwrap();
    let receipt = intake.take(lines("cpu v=1.5 w=1\n!bad\ncpu v=2 w=x\ncpu v=high", None)).await.unwrap();
    assert_eq!((receipt.rows, receipt.refused), (1, 3));
    let expected = [
        (1, "type_conflict", "cpu v=1.5 w=1"),
        (2, "invalid_line", "!bad"),
        (4, "type_conflict", "cpu v=high"),
    ];
    assert_eq!(refused(&receipt), expected);
    assert_eq!(receipt.parts[0].detail, "field 'v' is Int64 in plant.cpu and Float64 here");
    // JSON is coerced where no value changes, and finds the columns by their names.
    let receipt = intake.take(json("plant.cpu", "_ v=3.0 w=y\n_ v=3.5")).await.unwrap();
    assert_eq!((receipt.rows, receipt.refused), (1, 1));
    assert_eq!(refused(&receipt)[0].2, r#"{"ts":"1970-01-01T12:00:00Z","v":3.5}"#);
    intake.stop().await.unwrap();
    let content = content(&durable);
    assert_eq!(content["plant.cpu"].len(), 3);
    assert!(content["plant.cpu"][2].contains(r#""w":"y""#), "the refused line made no column: {content:?}");
    let rejects = &content["meta.rejects"];
    assert_eq!(rejects.len(), 4);
    let conflict = rejects.iter().find(|row| row.contains("cpu v=high")).unwrap();
    for part in [
        r#""pipeline":"direct""#,
        r#""component":"plant.cpu""#,
        r#""detail":"4: field 'v' is Int64 in plant.cpu and Utf8 here""#,
        r#""origin":"line_protocol/plant""#,
    ] {
        assert!(conflict.contains(part), "{conflict}");
    }
}

#[tokio::test]
async fn names_that_become_the_same_word_share_nothing() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    for (rows, text) in [(2, "CPU v=1 V=2\ncpu v=1.5"), (3, "cpu v=2.5 V=x\nCPU v=3 V=4\nC.P.U v=1")] {
        let intake = open(&durable, Faults::none(), options()).await.unwrap();
        let receipt = intake.take(lines(text, None)).await.unwrap();
        assert_eq!((receipt.rows, receipt.refused), (rows, 0), "{receipt:?}");
        intake.stop().await.unwrap();
    }
    let content = content(&durable);
    let tables: Vec<(&str, usize)> = content.iter().map(|(name, rows)| (name.as_str(), rows.len())).collect();
    assert_eq!(tables.len(), 4, "{tables:?}");
    assert_eq!(content["plant.cpu"].len(), 2);
    assert_eq!(content["plant.c_p_u"].len(), 1);
    assert!(content["plant.cpu"][1].contains(r#""v":3"#), "{content:?}");
}

#[tokio::test]
async fn a_delivery_that_comes_again_lands_nothing() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let options = DirectOptions { remembered_keys: 2, ..options() };
    let intake = open(&durable, Faults::none(), options.clone()).await.unwrap();
    let (first, at_once) = tokio::join!(
        intake.take(lines("cpu v=1\n!bad", Some("a"))),
        intake.take(lines("cpu v=1\n!bad", Some("a")))
    );
    let (first, at_once) = (first.unwrap(), at_once.unwrap());
    assert!(!first.repeated && at_once.repeated);
    assert_eq!((at_once.rows, at_once.refused), (1, 1));
    let other = intake.take(lines("cpu v=2", Some("a"))).await.unwrap_err();
    assert_eq!(reason(&other), "key_reused");
    intake.stop().await.unwrap();
    let intake = open(&durable, Faults::none(), options).await.unwrap();
    assert!(intake.take(lines("cpu v=1\n!bad", Some("a"))).await.unwrap().repeated, "after a restart");
    intake.take(lines("cpu v=3", Some("b"))).await.unwrap();
    intake.take(lines("cpu v=4", Some("c"))).await.unwrap();
    assert!(!intake.take(lines("cpu v=5", Some("a"))).await.unwrap().repeated, "beyond the bound");
    intake.stop().await.unwrap();
    let content = content(&durable);
    assert_eq!((content["plant.cpu"].len(), content["meta.rejects"].len()), (4, 1));
}

#[tokio::test]
async fn what_is_no_request_never_reaches_the_log() {
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("a defect of the decoder") {
            eprintln!("{info}");
        }
    }));
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let options = DirectOptions { largest_body_bytes: 100, ..options() };
    let intake = open(&durable, Faults::none(), options).await.unwrap();
    for (delivery, expected) in [
        (lines("?", None), "invalid_body"),
        (lines("panic", None), "decoder_error"),
        (lines(&"x".repeat(101), None), "too_large"),
        (lines("cpu v=1", Some(&"k".repeat(257))), "invalid_key"),
        (json("meta.rejects", "_ v=1"), "reserved_table"),
        (json("twin.vehicle", "_ v=1"), "reserved_table"),
    ] {
        assert_eq!(reason(&intake.take(delivery).await.unwrap_err()), expected);
    }
    assert_eq!(intake.take(lines("", None)).await.unwrap(), Receipt::default());
    let format = BodyFormat::LineProtocol { database: "meta".to_owned(), precision: Precision::default() };
    intake.take(Delivery { format, ..lines("rejects v=1", None) }).await.unwrap();
    intake.stop().await.unwrap();
    let durable = durable.lock().unwrap();
    assert_eq!(durable.log.len(), 1);
    assert!(durable.tables["meta.rejects"].is_empty());
    assert!(durable.tables.keys().any(|name| name.starts_with("meta_")));
}

#[tokio::test]
async fn rows_are_visible_when_their_caller_hears_of_them() {
    let store = Arc::new(FakeStore::new(&Arc::default(), Faults::none()));
    let slow = DirectOptions { commit_interval: Duration::from_hours(1), ..options() };
    let intake = DirectIngest::open(Arc::clone(&store) as _, Arc::new(Lines), None, slow).await.unwrap();
    for number in 1..=5 {
        intake.take(lines(&format!("cpu v={number}\n!bad"), None)).await.unwrap();
        let fresh = store.fresh.lock().unwrap();
        let count = |table: &str, writer: &str| fresh[&(table.to_owned(), writer.to_owned())].len();
        assert_eq!(count("plant.cpu", "direct/plant.cpu"), number);
        assert_eq!(count("meta.rejects", "direct/rejects"), number);
        assert_eq!(store.durable.lock().unwrap().log.len(), number, "durable");
    }
}

#[tokio::test]
async fn a_stopped_intake_takes_nothing_and_reads_nothing_again() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let slow = DirectOptions { commit_interval: Duration::from_hours(1), ..options() };
    let intake = open(&durable, Faults::none(), slow).await.unwrap();
    for number in 0..20 {
        intake.take(lines(&format!("cpu v={number}"), None)).await.unwrap();
    }
    assert!(content(&durable)["plant.cpu"].is_empty(), "nothing is committed before the interval is over");
    intake.stop().await.unwrap();
    assert_eq!(reason(&intake.take(lines("cpu v=1", None)).await.unwrap_err()), "failed");
    assert_eq!(content(&durable)["plant.cpu"].len(), 20);
    assert_eq!(durable.lock().unwrap().released, 20);
    let again = open(&durable, Faults::none(), options()).await.unwrap();
    assert_eq!(again.stats().processed.load(Ordering::Relaxed), 0);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_not_touched_gets_no_commit_and_holds_nothing_back() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let options = DirectOptions { commit_bytes: 1, ..options() };
    let intake = open(&durable, Faults::none(), options).await.unwrap();
    intake.take(lines("once v=1\n!bad", None)).await.unwrap();
    for number in 0..10 {
        intake.take(lines(&format!("often v={number}"), None)).await.unwrap();
    }
    let durable = durable.lock().unwrap();
    assert_eq!((durable.versions["plant.once"], durable.versions["meta.rejects"]), (1, 1));
    assert!(durable.versions["plant.often"] >= 9);
    assert!(durable.released >= 9, "{}", durable.released);
    assert!(durable.states.len() <= 2, "old states go");
}

#[tokio::test]
async fn above_the_bound_of_memory_callers_are_sent_away_until_a_commit() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let options =
        DirectOptions { memory_bytes: 60_000, commit_interval: Duration::from_millis(100), ..options() };
    let intake = open(&durable, Faults::none(), options).await.unwrap();
    let mut landed = 0;
    let busy = loop {
        match intake.take(lines(&format!("cpu v={landed}"), None)).await {
            Ok(_) => landed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(reason(&busy), "busy");
    assert!(landed > 3 && intake.busy() == 1, "{landed}");
    while intake.take(lines(&format!("cpu v={landed}"), None)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    intake.stop().await.unwrap();
    assert_eq!(intake.held_bytes(), 0);
    assert_eq!(content(&durable)["plant.cpu"].len(), landed + 1);
}

#[tokio::test]
async fn failures_that_pass_are_waited_out() {
    for every in [2, 3, 5] {
        let durable: Arc<Mutex<Durable>> = Arc::default();
        let options = DirectOptions { commit_bytes: 3_000, ..options() };
        let intake = open(&durable, Faults::new(-1, false, every), options).await.unwrap();
        for number in 0..20 {
            let body = format!("cpu v={number}\nmem a{}={number}\n!{number}", number % 4);
            let receipt = intake.take(lines(&body, None)).await.unwrap();
            assert_eq!((receipt.rows, receipt.refused), (2, 1));
        }
        assert!(intake.stats().errors.load(Ordering::Relaxed) > 0);
        intake.stop().await.unwrap();
        let content = content(&durable);
        let counts: Vec<usize> = content.values().map(Vec::len).collect();
        assert_eq!(counts, [20, 20, 20], "stumbling every {every}");
    }
}

#[tokio::test]
async fn a_lost_log_is_told() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let intake = open(&durable, Faults::none(), options()).await.unwrap();
    intake.take(lines("cpu v=1", None)).await.unwrap();
    intake.stop().await.unwrap();
    durable.lock().unwrap().log.clear();
    let error = open(&durable, Faults::none(), options()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("ends at message 0"), "{error}");
}

#[tokio::test]
async fn a_log_that_starts_anew_confirms_nothing_that_is_not_there() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let intake = open(&durable, Faults::none(), options()).await.unwrap();
    for number in 0..3 {
        intake.take(lines(&format!("cpu v={number}"), None)).await.unwrap();
    }
    intake.stop().await.unwrap();
    durable.lock().unwrap().log.clear();
    durable.lock().unwrap().states.clear();
    durable.lock().unwrap().released = 0;
    let intake = open(&durable, Faults::none(), options()).await.unwrap();
    let receipt = intake.take(lines("cpu v=7\nmem v=1", None)).await.unwrap();
    assert_eq!((receipt.rows, receipt.refused), (1, 1));
    assert_eq!(refused(&receipt), [(1, "table_refused", "cpu v=7")]);
    assert!(receipt.parts[0].detail.contains("ends at message 1"), "{}", receipt.parts[0].detail);
    intake.stop().await.unwrap();
    assert_eq!(content(&durable)["meta.rejects"].len(), 1);
}

/// A clock that jumps an hour back at every second look.
#[derive(Default)]
struct Jumping(std::sync::atomic::AtomicI64);

impl twinlake_contracts::Clock for Jumping {
    fn now_us(&self) -> i64 {
        let look = self.0.fetch_add(1, Ordering::Relaxed);
        1_600_000_000_000_000 + look - (look % 2) * 3_600_000_000
    }
}

#[tokio::test]
async fn a_clock_that_jumps_back_loses_and_doubles_nothing() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    for part in 0..2 {
        let store = Arc::new(FakeStore::new(&durable, Faults::none()));
        let clock: Arc<Jumping> = Arc::default();
        let intake = DirectIngest::open(store, Arc::new(Lines), Some(clock), options()).await.unwrap();
        for number in 0..50 {
            let delivery = lines(&format!("cpu v={}", part * 50 + number), Some(&format!("{part}-{number}")));
            assert_eq!(intake.take(delivery.clone()).await.unwrap().rows, 1);
            assert!(intake.take(delivery).await.unwrap().repeated);
        }
        intake.stop().await.unwrap();
    }
    let rows = &content(&durable)["plant.cpu"];
    assert_eq!(rows.len(), 100);
    for number in 0..100 {
        assert_eq!(
            rows.iter()
                .filter(|row| row.contains(&format!(r#""v":{number}}}"#))
                    || row.contains(&format!(r#""v":{number},"#)))
                .count(),
            1
        );
    }
}
