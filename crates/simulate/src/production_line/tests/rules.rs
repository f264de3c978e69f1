//! The rules of the line, each in a case whose result is plain arithmetic, and the laws that hold for every line.

use super::*;

/// Exactly so long, without chance: a run of 100,000 s.
fn plain() -> Vec<(&'static str, Value)> {
    vec![
        ("duration_s", json!(100_000)),
        ("warm_up_s", json!(1000)),
        ("replications", json!(2)),
        ("sensitivity", json!(false)),
    ]
}

fn rate(outcome: &Outcome) -> f64 {
    figure(outcome, "throughput_per_h").0 / 3600.0
}

fn constant(seconds: f64) -> String {
    format!("process = {{ distribution = 'constant', value_s = {seconds} }}")
}

#[test]
fn the_slowest_machine_sets_the_pace() {
    let machines = [constant(4.0), constant(10.0), constant(5.0)];
    let line = tandem(&[&machines[0], &machines[1], &machines[2]], &[0, 0]);
    let outcome = run(&line, &plain()).unwrap();
    assert!((rate(&outcome) - 0.1).abs() < 1e-4);
    assert!((number(&outcome, "machines", "m0", "blocked_share") - 0.6).abs() < 1e-3);
    assert!((number(&outcome, "machines", "m2", "starved_share") - 0.5).abs() < 1e-3);
    assert!((number(&outcome, "machines", "m1", "oee") - 1.0).abs() < 1e-3);
}

#[test]
fn a_shift_stops_the_clock_and_work_goes_on_where_it_was() {
    // 7 s of work, shifts of 100 s with as long a pause: two shifts make 200 / 7 parts on average, none is lost.
    let line = tandem(&[&format!("{}\nshift = 'day'", constant(7.0))], &[])
        + "[[shifts]]\nname = 'day'\nperiod_s = 200\nspans_s = [[0, 60], [60, 100]]\n";
    let outcome = run(&line, &plain()).unwrap();
    assert!((rate(&outcome) - 0.5 / 7.0).abs() < 2e-5, "{}", rate(&outcome));
    assert!((number(&outcome, "machines", "m0", "off_shift_share") - 0.5).abs() < 1e-3);
    assert!((number(&outcome, "machines", "m0", "availability") - 1.0).abs() < 1e-3);
}

#[test]
fn a_setup_comes_between_different_products_only() {
    // Products are drawn, so a change of product comes at half of the parts.
    let line =
        tandem(&[&format!("{}\nsetup = {{ distribution = 'constant', value_s = 6 }}", constant(4.0))], &[])
            + "[[products]]\nname = 'a'\n[[products]]\nname = 'b'\n";
    let outcome = run(&line, &plain()).unwrap();
    assert!((rate(&outcome) - 1.0 / 7.0).abs() < 2e-3, "{}", rate(&outcome));
    assert!((number(&outcome, "machines", "m0", "setup_share") - 3.0 / 7.0).abs() < 5e-3);
}

#[test]
fn products_have_times_and_routes_of_their_own() {
    let line = r#"
[[products]]
name = "a"
share = 3
[[products]]
name = "b"
[[sources]]
name = "raw"
output = "in"
[[buffers]]
name = "in"
capacity = 1
[[buffers]]
name = "extra"
[[machines]]
name = "press"
input = "in"
process_of = { a = { distribution = "constant", value_s = 2 }, b = { distribution = "constant", value_s = 6 } }
output_of = { b = "extra" }
[[machines]]
name = "polish"
input = "extra"
process = { distribution = "constant", value_s = 1 }
"#;
    let outcome = run(line, &plain()).unwrap();
    assert!((rate(&outcome) - 1.0 / 3.0).abs() < 5e-3);
    let polished = number(&outcome, "machines", "polish", "parts_per_h") / 3600.0;
    assert!((polished - 1.0 / 12.0).abs() < 3e-3, "{polished}");
}

#[test]
fn rework_and_scrap() {
    // Each pass: 0.1 scrap, 0.2 rework, 0.7 good. Parts that pass an hour: 1 / 2 s; good ones 0.7 of them.
    // The buffer has no limit: a machine that gives to its own full input would wait for itself.
    let line = format!(
        "work_in_process_limit = 5\n[[sources]]\nname = 'raw'\noutput = 'b0'\n[[buffers]]\nname = 'b0'\n\
         [[machines]]\nname = 'm0'\ninput = 'b0'\n{}\nscrap_share = 0.1\nrework = {{ share = 0.2, to = 'b0' }}\n",
        constant(2.0)
    );
    let outcome = run(&line, &plain()).unwrap();
    assert!((rate(&outcome) - 0.35).abs() < 5e-3, "{}", rate(&outcome));
    assert!((number(&outcome, "machines", "m0", "quality") - 0.7).abs() < 0.01);
    assert!((number(&outcome, "machines", "m0", "oee") - 0.7).abs() < 0.01);
    assert!((number(&outcome, "machines", "m0", "scrap_share") - 0.1).abs() < 0.01);
    // A part that may never be reworked is scrap at once.
    let strict = line.replace("'b0' }", "'b0', at_most = 0 }");
    let outcome = run(&strict, &plain()).unwrap();
    assert!((number(&outcome, "machines", "m0", "scrap_share") - 0.3).abs() < 0.01);
}

#[test]
fn an_operator_goes_from_machine_to_machine() {
    // Two machines never starved share one person: 3 s here, 5 s there, in turn.
    let line = r#"
[[pools]]
name = "person"
[[sources]]
name = "raw a"
output = "in a"
[[sources]]
name = "raw b"
output = "in b"
[[buffers]]
name = "in a"
capacity = 2
[[buffers]]
name = "in b"
capacity = 2
[[machines]]
name = "a"
input = "in a"
operators = "person"
process = { distribution = "constant", value_s = 3 }
[[machines]]
name = "b"
input = "in b"
operators = "person"
process = { distribution = "constant", value_s = 5 }
"#;
    let outcome = run(line, &plain()).unwrap();
    for (machine, seconds) in [("a", 3.0), ("b", 5.0)] {
        assert!((number(&outcome, "machines", machine, "processing_share") - seconds / 8.0).abs() < 1e-3);
        let waits = number(&outcome, "machines", machine, "waiting_for_operator_share");
        assert!((waits - (1.0 - seconds / 8.0)).abs() < 1e-3, "{machine}: {waits}");
    }
    assert!((number(&outcome, "pools", "person", "busy_share") - 1.0).abs() < 1e-3);
    // With another person both work all the time.
    let outcome = run(&line.replace("name = \"person\"", "name = \"person\"\ncount = 2"), &plain()).unwrap();
    assert!((rate(&outcome) - (1.0 / 3.0 + 0.2)).abs() < 1e-3);
}

#[test]
fn operators_on_shift_finish_what_they_do() {
    // One person for half of the time; 10 s fit into 100 s exactly ten times.
    let line = tandem(&[&format!("{}\noperators = 'person'", constant(10.0))], &[])
        + "[[pools]]\nname = 'person'\nshift = 'day'\n\
           [[shifts]]\nname = 'day'\nperiod_s = 200\nspans_s = [[0, 95]]\n";
    let outcome = run(&line, &plain()).unwrap();
    assert!((rate(&outcome) - 0.05).abs() < 1e-3, "{}", rate(&outcome));
}

#[test]
fn vehicles_carry_parts() {
    let line = |vehicles: usize| {
        format!(
            "[[sources]]\nname = 'raw'\noutput = 'in'\n[[pools]]\nname = 'fleet'\ncount = {vehicles}\n\
             [[buffers]]\nname = 'in'\ncapacity = 1\n[[buffers]]\nname = 'out'\ncapacity = 0\n\
             [[buffers]]\nname = 'there'\ncapacity = 1\n\
             [[machines]]\nname = 'here'\ninput = 'in'\noutput = 'out'\n{}\n\
             [[transports]]\nname = 'way'\ninput = 'out'\noutput = 'there'\nvehicles = 'fleet'\n\
             pickup = {{ distribution = 'constant', value_s = 10 }}\n\
             travel = {{ distribution = 'constant', value_s = 30 }}\n\
             [[machines]]\nname = 'end'\ninput = 'there'\n{}\n",
            constant(15.0),
            constant(1.0)
        )
    };
    // A round takes 40 s. Without room behind it the machine keeps its part until a vehicle is there: with many
    // vehicles its cycle is 15 s of work and 10 s of waiting.
    let one = run(&line(1), &plain()).unwrap();
    assert!((rate(&one) - 1.0 / 40.0).abs() < 1e-4, "{}", rate(&one));
    assert!((number(&one, "pools", "fleet", "busy_share") - 1.0).abs() < 1e-3);
    let many = run(&line(4), &plain()).unwrap();
    assert!((rate(&many) - 1.0 / 25.0).abs() < 1e-4, "{}", rate(&many));
    assert!((number(&many, "machines", "here", "blocked_share") - 0.4).abs() < 1e-3);
}

#[test]
fn shares_of_time_add_up_and_parts_are_conserved() {
    let line = include_str!("../../../../../schemas/lines/car-painting.toml");
    let city = Snapshot { tables: line_toml::read_line(line, "line.toml").unwrap() };
    let model = Line::read(&city).unwrap();
    for replication in 0..3 {
        let mut engine = Engine::new(&model, 5, replication);
        let mut inside = 0.0;
        for until in [50_000.0, 123_456.0, 400_000.0] {
            engine.run(until, u64::MAX, &|| true).unwrap();
            let tally = engine.close_window();
            for (station, spec) in tally.stations.iter().zip(&model.stations) {
                let total: f64 = station.seconds.iter().sum();
                assert!((total - tally.seconds * spec.units as f64).abs() < 1e-3, "{}", spec.name);
                assert_eq!(station.parts, station.good + station.rework + station.scrap, "{}", spec.name);
            }
            // What came in and has not left is in the line, or the one part that waits at the source.
            inside += tally.arrived as f64 - (tally.left + tally.scrapped + tally.lost) as f64;
            assert!((0.0..=91.0).contains(&inside), "{inside}");
        }
    }
}

#[test]
fn another_time_at_one_machine_leaves_the_draws_of_others() {
    // Two lines side by side in one: what happens in one is bit for bit the same whatever the other does.
    let line = |mean: f64| {
        format!(
            "{}{}",
            queue(1.5, "distribution = 'gamma', mean_s = 1, deviation_s = 0.5", 1, None),
            queue(2.0, &format!("distribution = 'exponential', mean_s = {mean}"), 1, None)
                .replace("\"arrivals\"", "\"others\"")
                .replace("\"queue\"", "\"other queue\"")
                .replace("\"server\"", "\"other\"")
        )
    };
    let of = |mean: f64| {
        let outcome = run(&line(mean), &plain()).unwrap();
        (
            number(&outcome, "buffers", "queue", "mean_level").to_bits(),
            number(&outcome, "buffers", "other queue", "mean_level").to_bits(),
        )
    };
    let (slow, fast) = (of(1.0), of(0.5));
    assert_eq!(slow.0, fast.0);
    assert_ne!(slow.1, fast.1);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let line = include_str!("../../../../../schemas/lines/car-painting.toml");
    let set = [("duration_s", json!(20_000)), ("warm_up_s", json!(0)), ("replications", json!(3))];
    let on = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let outcome = pool.install(|| run_seeded(line, &set, seed)).unwrap();
        (outcome.tables, outcome.summary)
    };
    let one = on(1, 7);
    assert_eq!(one, on(4, 7));
    assert_ne!(one.1, on(1, 8).1);
}

#[test]
fn mistakes_name_file_line_key_and_the_way_out() {
    let line = queue(2.0, "distribution = 'exponential', mean_s = 1", 1, Some(4));
    let cases = [
        ("input = \"queue\"", "input = \"queu\"", "line.toml:14", "did you mean 'queue'?"),
        ("mean_s = 1 }", "mean_s = -1 }", "line.toml", "it must not be negative"),
        ("mean_s = 1 }", "mean = 1 }", "line.toml:16", "unknown field `mean`"),
        ("mean_s = 1 }", "value_s = 1 }", "line.toml", "'exponential' takes mean_s"),
        ("'exponential', mean_s = 1 }", "'exponentially', mean_s = 1 }", "line.toml:16", "known: constant"),
        ("units = 1", "units = 0", "line.toml:13", "must be a whole number from 1"),
        ("capacity = 4", "capacity = -4", "line.toml:", "must be a whole number from 0"),
        ("when_full = \"lost\"", "when_full = \"drop\"", "line.toml:6", "'wait' or 'lost'"),
        ("units = 1", "operators = \"people\"", "line.toml:15", "which the line does not have"),
        ("process", "setup", "line.toml:13", "no process time"),
        ("units = 1", "output = \"queue\"", "line.toml", "no part ever leaves"),
    ];
    for (right, wrong, place, message) in cases {
        assert!(line.contains(right), "{right}");
        let shown = run(&line.replace(right, wrong), &plain()).err().unwrap().to_string();
        assert!(shown.contains(place) && shown.contains(message), "{wrong}: {shown}");
    }
    let refused = |name: &str, value: Value| run(&line, &[(name, value)]).err().unwrap().to_string();
    assert!(refused("replications", json!(0)).contains("replications = 0 must be a whole number from 1"));
    assert!(refused("warm_up", json!(0)).contains("did you mean 'warm_up_s'?"));
    assert!(refused("sensitivity", json!("yes")).contains("true or false"));
}

#[test]
fn a_line_that_stands_still_says_where() {
    // Rework goes back into the buffer that the first machine fills: with no room left, all wait for each other.
    let line =
        tandem(&[&constant(1.0), &format!("{}\nrework = {{ share = 0.9, to = 'b1' }}", constant(1.0))], &[1]);
    let shown = run(&line, &plain()).err().unwrap().to_string();
    assert!(shown.contains("stands still") && shown.contains("'m0', 'm1'"), "{shown}");
}

#[test]
fn a_run_can_be_stopped() {
    let city = Snapshot { tables: line_toml::read_line(&tandem(&[EXPONENTIAL], &[]), "line.toml").unwrap() };
    let stopped = ProductionLine.run(
        &city,
        Horizon { from_us: 0, to_us: 0 },
        0,
        &Parameters::from([("duration_s".to_owned(), json!(1e9))]),
        &|_, _| false,
    );
    assert!(stopped.err().unwrap().to_string().contains("stopped"));
}

#[test]
fn a_machine_out_of_service_is_down_for_the_whole_run() {
    let out = format!("{}\nin_service = false", constant(10.0));
    let line = tandem(&[&constant(4.0), &out, &constant(5.0)], &[3, 3]);
    let outcome = run(&line, &plain()).unwrap();
    // Nothing passes it: the line stands, which is a result and not a mistake.
    assert_eq!(figure(&outcome, "throughput_per_h").0, 0.0);
    let of = |machine: &str, column: &str| number(&outcome, "machines", machine, column);
    assert_eq!((of("m1", "down_share"), of("m1", "oee"), of("m1", "parts_per_h")), (1.0, 0.0, 0.0));
    assert_eq!((of("m0", "blocked_share"), of("m0", "oee")), (1.0, 0.0));
    assert_eq!((of("m2", "starved_share"), of("m2", "oee")), (1.0, 0.0));
    // A number of parts will never be made: the error says by whom.
    let endless = [plain(), vec![("parts", json!(10))]].concat();
    let shown = run(&line, &endless).unwrap_err().to_string();
    assert!(shown.contains("out of service: 'm1'"), "{shown}");
    // Beside another one the line goes on at half its pace.
    let pair = |out: &str| {
        format!(
            "[[sources]]\nname = 'raw'\noutput = 'in'\n[[buffers]]\nname = 'in'\ncapacity = 2\n\
             [[machines]]\nname = 'one'\ninput = 'in'\n{0}\n[[machines]]\nname = 'two'\ninput = 'in'\n{0}\n{out}",
            constant(10.0)
        )
    };
    assert!((rate(&run(&pair(""), &plain()).unwrap()) - 0.2).abs() < 1e-4);
    let half = run(&pair("in_service = false"), &plain()).unwrap();
    assert!((rate(&half) - 0.1).abs() < 1e-4);
    assert_eq!(number(&half, "machines", "two", "oee"), 0.0);
    assert!((number(&half, "machines", "one", "oee") - 1.0).abs() < 1e-3);
}
