//! The law of direct ingest: whatever happens between two steps, every body that was confirmed is in the lake exactly
//! once, and every other one exactly once or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use proptest::prelude::*;
use twinlake_contracts::{Delivery, Intake, IntakeError, Receipt, Result};

use super::DirectOptions;
use super::fake_decoder::{content, lines, open, options};
use crate::fakes::{Durable, Faults};

/// Bodies that make tables, add columns, meet conflicts and hold bad lines.
fn bodies() -> Vec<String> {
    (0..12)
        .map(|number| match number % 6 {
            0 => format!("cpu id={number} v=1\nmem id={number} free=2.5"),
            1 => format!("cpu id={number} v=1.5\n!bad {number}\ncpu id={number} w{number}=x"),
            2 => format!("CPU id={number} v=text\ndisk{number} id={number}"),
            3 => format!("mem id={number} free=1\nmem id={number} Free=1\nmem id={number} free=0.5"),
            4 => format!("!only bad {number}"),
            _ => format!("cpu id={number} v=2 W{number}=1\ncpu id={number} V=1"),
        })
        .collect()
}

fn deliveries(keyed: bool) -> Vec<Delivery> {
    let key = |number: usize| keyed.then(|| format!("key {number}"));
    let bodies = bodies().into_iter().enumerate();
    bodies.map(|(number, body)| lines(&body, key(number).as_deref())).collect()
}

fn quick() -> DirectOptions {
    DirectOptions { commit_bytes: 4_000, ..options() }
}

/// Brings deliveries two at a time; stops at the first pair that fails. Gives the answers in their order.
async fn bring(
    durable: &Arc<Mutex<Durable>>,
    faults: Arc<Faults>,
    deliveries: &[Delivery],
) -> (Vec<Result<Receipt, IntakeError>>, bool) {
    let mut answers = Vec::new();
    let Ok(intake) = open(durable, faults, quick()).await else { return (answers, false) };
    for pair in deliveries.chunks(2) {
        let pair = join_all(pair.iter().map(|delivery| intake.take(delivery.clone()))).await;
        let failed = pair.iter().any(Result::is_err);
        answers.extend(pair);
        if failed {
            let _ = intake.stop().await;
            return (answers, false);
        }
    }
    let stopped = intake.stop().await.is_ok();
    (answers, stopped)
}

async fn undisturbed() -> BTreeMap<String, Vec<String>> {
    let durable = Arc::default();
    let (answers, stopped) = bring(&durable, Faults::none(), &deliveries(true)).await;
    assert!(stopped && answers.iter().all(Result::is_ok), "{answers:?}");
    content(&durable)
}

/// Brings again what was not confirmed.
async fn bring_the_rest(
    durable: &Arc<Mutex<Durable>>,
    all: &[Delivery],
    answers: &[Result<Receipt, IntakeError>],
) {
    let confirmed = answers.iter().take_while(|answer| answer.is_ok()).count();
    let rest = &all[confirmed - confirmed % 2..];
    let (answers, stopped) = bring(durable, Faults::none(), rest).await;
    assert!(stopped && answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn the_bodies_of_these_tests_do_all_that_can_be_done() {
    let content = undisturbed().await;
    let counts: Vec<(&str, usize)> = content.iter().map(|(name, rows)| (name.as_str(), rows.len())).collect();
    let second = counts.iter().find(|(name, _)| name.starts_with("plant.cpu_")).unwrap().0;
    let expected = [
        ("meta.rejects", 8),
        ("plant.cpu", 2 + 2 + 4),
        (second, 2),
        ("plant.disk2", 1),
        ("plant.disk8", 1),
        ("plant.mem", 2 + 4),
    ];
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_crash_between_any_two_steps_changes_nothing() {
    let expected = undisturbed().await;
    let all = deliveries(true);
    for takes_effect in [false, true] {
        for dies_after in 0.. {
            let durable = Arc::default();
            let faults = Faults::new(dies_after, takes_effect, 0);
            let (answers, stopped) = bring(&durable, Arc::clone(&faults), &all).await;
            bring_the_rest(&durable, &all, &answers).await;
            assert_eq!(content(&durable), expected, "killed at step {dies_after}, effect: {takes_effect}");
            if stopped && faults.steps.load(Ordering::SeqCst) <= dies_after {
                assert!(dies_after > 60, "{dies_after} steps are too few for a test");
                break;
            }
        }
    }
}

/// How often each body is in the lake, by lines: a body is there as a whole or not at all.
fn check_ledger(content: &BTreeMap<String, Vec<String>>, bodies: &[String], confirmed: &[Option<bool>]) {
    let all: Vec<&String> = content.values().flatten().collect();
    for (number, body) in bodies.iter().enumerate() {
        let mark = format!("\"id\":{number},");
        let text = format!("id={number} ");
        let found = all.iter().filter(|row| row.contains(&mark) || row.contains(&text)).count();
        let lines = body.lines().count();
        match confirmed[number] {
            Some(true) => assert_eq!(found, lines, "body {number} was confirmed: {body}"),
            Some(false) => assert!(found == 0 || found == lines, "{found} of body {number}: {body}"),
            None => assert_eq!(found, 0, "body {number} was never brought"),
        }
    }
}

fn line() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("a id=# v=1"),
        Just("a id=# v=1.5"),
        Just("A id=# v=x"),
        Just("b id=# w=1 x=2"),
        Just("b id=# w=text y=1"),
        Just("b id=# W=1"),
        Just("!bad id=# line"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn random_bodies_and_crashes_leave_a_true_ledger(
        bodies in proptest::collection::vec(proptest::collection::vec(line(), 1..5), 1..16),
        deaths in proptest::collection::vec((0..90i64, any::<bool>(), 0..7i64), 0..5),
        commit_bytes in prop_oneof![Just(1usize), Just(3_000), Just(1_000_000)],
        at_once in 1..4usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bodies: Vec<String> = bodies
                .iter()
                .enumerate()
                .map(|(number, body)| body.join("\n").replace('#', &number.to_string()))
                .collect();
            let durable: Arc<Mutex<Durable>> = Arc::default();
            let mut confirmed = vec![None; bodies.len()];
            let mut next = 0;
            let last = (-1, false, 0);
            for (dies_after, takes_effect, stumbles) in deaths.into_iter().chain([last]) {
                let stumbles = if stumbles == 1 { 0 } else { stumbles };
                let faults = Faults::new(dies_after, takes_effect, stumbles);
                let options = DirectOptions { commit_bytes, ..options() };
                let Ok(intake) = open(&durable, faults, options).await else { continue };
                while next < bodies.len() {
                    let group: Vec<usize> = (next..bodies.len().min(next + at_once)).collect();
                    next += group.len();
                    let takes = group.iter().map(|number| intake.take(lines(&bodies[*number], None)));
                    let answers = join_all(takes).await;
                    for (number, answer) in group.iter().zip(&answers) {
                        confirmed[*number] = Some(answer.is_ok());
                    }
                    if answers.iter().any(Result::is_err) {
                        break;
                    }
                }
                let _ = intake.stop().await;
            }
            check_ledger(&content(&durable), &bodies, &confirmed);
        });
    }
}
