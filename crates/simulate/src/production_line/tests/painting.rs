//! The case of the paint shop: find the factor that limits output, change it, show the gain.

use super::*;

const LINE: &str = include_str!("../../../../../schemas/lines/car-painting.toml");

/// The first rows of the ranking: element, factor, gain an hour, half-width.
fn ranking(outcome: &Outcome) -> Vec<(String, String, f64, f64)> {
    let table = &outcome.tables["sensitivity"];
    let text = |column: &str, row: usize| table[column].as_string::<i32>().value(row).to_owned();
    let number = |column: &str, row: usize| table[column].as_primitive::<Float64Type>().value(row);
    (0..table.num_rows())
        .map(|row| {
            assert_eq!(table["rank"].as_primitive::<Int64Type>().value(row), row as i64 + 1);
            (
                text("element", row),
                text("factor", row),
                number("gain_per_h", row),
                number("gain_half_width", row),
            )
        })
        .collect()
}

#[test]
fn the_ranking_names_what_limits_the_paint_shop_and_its_change_brings_the_gain() {
    let outcome = run(LINE, &[]).unwrap();
    let before = figure(&outcome, "throughput_per_h").0;
    let ranking = ranking(&outcome);
    let (element, factor, promised, half_width) = &ranking[0];
    for row in ranking.iter().take(6) {
        println!("{row:?}");
    }
    assert_eq!((element.as_str(), factor.as_str()), ("top coat", "process_time"));
    assert_eq!(outcome.summary["limiting_element"], json!("top coat"));
    assert!(promised - half_width > 0.0);
    // The next best is behind by more than chance.
    assert!(ranking[1].2 + ranking[1].3 < promised - half_width, "{:?}", ranking[1]);

    // Ten per cent less at the top coat, written into the file, on random numbers of its own: the gain is there.
    let old = "process = { distribution = \"triangular\", min_s = 62, mode_s = 70, max_s = 90 }";
    assert!(LINE.contains(old));
    let new = "process = { distribution = \"triangular\", min_s = 55.8, mode_s = 63, max_s = 81 }";
    let changed = run_seeded(&LINE.replace(old, new), &[("sensitivity", json!(false))], 99).unwrap();
    let gain = figure(&changed, "throughput_per_h").0 - before;
    assert!((gain - promised).abs() < 0.3 * promised, "promised {promised}, found {gain}");
}

#[test]
fn a_bottleneck_made_on_purpose_is_found() {
    for slow in 0..3 {
        let times = [0, 1, 2].map(|at| if at == slow { 1.3 } else { 1.0 });
        let machines =
            times.map(|time| format!("process = {{ distribution = 'erlang', mean_s = {time}, phases = 4 }}"));
        let line = tandem(&[&machines[0], &machines[1], &machines[2]], &[3, 3]);
        let set = [("duration_s", json!(20_000)), ("warm_up_s", json!(500)), ("replications", json!(8))];
        let first = &ranking(&run(&line, &set).unwrap())[0];
        assert_eq!((first.0.as_str(), first.1.as_str()), (format!("m{slow}").as_str(), "process_time"));
    }
}
