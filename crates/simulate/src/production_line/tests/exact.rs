//! Queueing truth: closed forms written here, a Markov chain solved here, and the tables of exact results.

use std::fmt::Write as _;

use super::*;

#[test]
fn a_single_server_with_poisson_arrivals() {
    // M/M/1: L = rho / (1 - rho), W = 1 / (mu - lambda).
    let line = queue(1.25, "distribution = 'exponential', mean_s = 1", 1, None);
    let outcome = run(&line, &measured(100_000)).unwrap();
    close("W of M/M/1", figure(&outcome, "lead_time_s"), 5.0, 0.02);
    close("L of M/M/1", figure(&outcome, "work_in_process"), 4.0, 0.02);
    close("throughput of M/M/1", figure(&outcome, "throughput_per_h"), 0.8 * 3600.0, 0.005);
    assert!((number(&outcome, "buffers", "queue", "mean_level") - 3.2).abs() < 0.1);
    assert!((number(&outcome, "buffers", "queue", "wait_s") - 4.0).abs() < 0.1);
    assert!((number(&outcome, "machines", "server", "processing_share") - 0.8).abs() < 0.005);
}

#[test]
fn any_service_time_follows_pollaczek_and_khinchine() {
    // Wq = lambda (var + mean^2) / 2 (1 - rho) (Pollaczek 1930, Khinchine 1932).
    let cases: [(&str, f64, f64); 6] = [
        ("distribution = 'constant', value_s = 1", 1.0, 0.0),
        ("distribution = 'uniform', min_s = 0.5, max_s = 1.5", 1.0, 1.0 / 12.0),
        ("distribution = 'erlang', mean_s = 1, phases = 3", 1.0, 1.0 / 3.0),
        ("distribution = 'lognormal', mean_s = 1, deviation_s = 0.8", 1.0, 0.64),
        ("distribution = 'gamma', mean_s = 1, deviation_s = 1.5", 1.0, 2.25),
        ("distribution = 'triangular', min_s = 0, mode_s = 1, max_s = 2", 1.0, 1.0 / 6.0),
    ];
    for (process, mean, variance) in cases {
        let arrivals = 0.7;
        let exact = arrivals * (variance + mean * mean) / (2.0 * (1.0 - arrivals * mean)) + mean;
        let outcome = run(&queue(1.0 / arrivals, process, 1, None), &measured(60_000)).unwrap();
        close(process, figure(&outcome, "lead_time_s"), exact, 0.03);
    }
}

/// L and the share lost of M/M/c with room for `room` customers in all, from the balance of its states.
fn many_servers(arrivals: f64, servers: usize, room: usize) -> (f64, f64) {
    let mut weights = vec![1.0];
    for n in 1..=room {
        weights.push(weights[n - 1] * arrivals / n.min(servers) as f64);
    }
    let total: f64 = weights.iter().sum();
    let level = weights.iter().enumerate().map(|(n, weight)| n as f64 * weight).sum::<f64>() / total;
    (level, weights[room] / total)
}

#[test]
fn several_servers_and_little_room() {
    for (arrivals, servers, room) in [(0.9, 1, 5), (4.0, 3, 10), (5.0, 5, 5), (1.5, 2, 400)] {
        let (level, lost) = many_servers(arrivals, servers, room);
        let process = "distribution = 'exponential', mean_s = 1";
        let line = queue(1.0 / arrivals, process, servers, Some(room - servers));
        let outcome = run(&line, &measured(60_000)).unwrap();
        close("L", figure(&outcome, "work_in_process"), level, 0.02);
        close("throughput", figure(&outcome, "throughput_per_h"), arrivals * (1.0 - lost) * 3600.0, 0.01);
        if lost > 1e-6 {
            close("lost", figure(&outcome, "lost_share"), lost, 0.02);
        }
    }
}

#[test]
fn blocking_between_two_machines() {
    // Exponential, equal rates, buffer of b, blocking after service: throughput (b + 2) / (b + 3) (Hunt 1956).
    for buffer in [0, 1, 4] {
        let line = tandem(&[EXPONENTIAL, EXPONENTIAL], &[buffer]);
        let outcome = run(&line, &measured(60_000)).unwrap();
        let exact = (buffer as f64 + 2.0) / (buffer as f64 + 3.0);
        close("two machines", figure(&outcome, "throughput_per_h"), exact * 3600.0, 0.005);
    }
}

/// Two unreliable machines, rates of work, failure while working, and repair; the throughput from the stationary
/// distribution of the chain (parts at or before the second machine, first up, second up).
fn unreliable_pair(buffer: usize, work: [f64; 2], fail: [f64; 2], repair: [f64; 2]) -> f64 {
    let full = buffer + 2;
    let states = (full + 1) * 4;
    let index = |n: usize, up: [usize; 2]| n * 4 + up[0] * 2 + up[1];
    let mut rates: Vec<(usize, usize, f64)> = Vec::new();
    for n in 0..=full {
        for up in [[0, 0], [0, 1], [1, 0], [1, 1]] {
            let here = index(n, up);
            let busy = [n < full, n > 0];
            for machine in 0..2 {
                let mut other = up;
                other[machine] = 1 - up[machine];
                match up[machine] {
                    0 => rates.push((here, index(n, other), repair[machine])),
                    _ if busy[machine] => {
                        rates.push((here, index(n, other), fail[machine]));
                        let next = if machine == 0 { n + 1 } else { n - 1 };
                        rates.push((here, index(next, up), work[machine]));
                    }
                    _ => {}
                }
            }
        }
    }
    // The chain seen at the ticks of a fast clock has the same stationary distribution.
    let mut out = vec![0.0; states];
    for (from, _, rate) in &rates {
        out[*from] += rate;
    }
    let clock = 1.1 * out.iter().fold(0.0_f64, |most, rate| most.max(*rate));
    let mut share = vec![1.0 / states as f64; states];
    for _ in 0..200_000 {
        let mut next: Vec<f64> =
            share.iter().zip(&out).map(|(share, out)| share * (1.0 - out / clock)).collect();
        for (from, to, rate) in &rates {
            next[*to] += share[*from] * rate / clock;
        }
        share = next;
    }
    (1..=full).map(|n| share[index(n, [0, 1])] + share[index(n, [1, 1])]).sum::<f64>() * work[1]
}

#[test]
fn two_unreliable_machines_with_a_buffer() {
    let machine = |work: f64, fail: f64, repair: f64| {
        format!(
            "process = {{ distribution = 'exponential', mean_s = {} }}\nfailure = {{ clock = 'operating', \
             time_to_failure = {{ distribution = 'exponential', mean_s = {} }}, \
             time_to_repair = {{ distribution = 'exponential', mean_s = {} }} }}",
            1.0 / work,
            1.0 / fail,
            1.0 / repair
        )
    };
    let (work, fail, repair) = ([1.0, 1.2], [0.05, 0.08], [0.2, 0.25]);
    for buffer in [0, 3, 10] {
        let exact = unreliable_pair(buffer, work, fail, repair);
        let machines = [machine(work[0], fail[0], repair[0]), machine(work[1], fail[1], repair[1])];
        let line = tandem(&[&machines[0], &machines[1]], &[buffer]);
        let outcome = run(&line, &measured(60_000)).unwrap();
        close("unreliable pair", figure(&outcome, "throughput_per_h"), exact * 3600.0, 0.01);
    }
}

#[test]
fn machines_that_share_a_repairer() {
    // The machine repair model: p(n) ~ N! / (N - n)! (mean repair / mean up)^n for one repairer (Feller 1950).
    let (machines, up, repair) = (5, 10.0, 3.0);
    let mut weights = vec![1.0];
    for n in 1..=machines {
        weights.push(weights[n - 1] * (machines - n + 1) as f64 * repair / up);
    }
    let total: f64 = weights.iter().sum();
    let down = weights.iter().enumerate().map(|(n, weight)| n as f64 * weight).sum::<f64>() / total;
    let busy = 1.0 - weights[0] / total;
    let line = format!(
        "[[sources]]\nname='raw'\noutput='in'\n[[buffers]]\nname='in'\ncapacity=1\n[[pools]]\nname='fitter'\n\
         [[machines]]\nname='loom'\nunits={machines}\ninput='in'\nprocess={{ distribution='constant', value_s=0.5 }}\n\
         failure={{ clock='calendar', time_to_failure={{ distribution='exponential', mean_s={up} }}, \
         time_to_repair={{ distribution='exponential', mean_s={repair} }}, repair_crew='fitter' }}\n"
    );
    let outcome = run(&line, &measured(100_000)).unwrap();
    let found = number(&outcome, "machines", "loom", "down_share");
    assert!((found - down / machines as f64).abs() < 0.005, "{found}, exact {}", down / machines as f64);
    let found = number(&outcome, "pools", "fitter", "busy_share");
    assert!((found - busy).abs() < 0.005, "{found}, exact {busy}");
    let exact = (machines as f64 - down) / 0.5 * 3600.0;
    close("throughput of the looms", figure(&outcome, "throughput_per_h"), exact, 0.01);
}

#[test]
fn failures_by_operating_and_by_calendar_time() {
    // Never starved, never blocked: both clocks give the availability up / (up + down).
    for clock in ["operating", "calendar"] {
        let machine = format!(
            "process = {{ distribution = 'uniform', min_s = 0.5, max_s = 1.5 }}\nfailure = {{ clock = '{clock}', \
             time_to_failure = {{ distribution = 'weibull', mean_s = 40, shape = 2 }}, \
             time_to_repair = {{ distribution = 'lognormal', mean_s = 10, deviation_s = 5 }} }}"
        );
        let outcome = run(&tandem(&[&machine], &[]), &measured(40_000)).unwrap();
        close(clock, figure(&outcome, "throughput_per_h"), 0.8 * 3600.0, 0.01);
    }
    // Starved three quarters of the time: only the calendar goes on then.
    let share = |clock: &str| {
        let process = format!(
            "distribution = 'constant', value_s = 1 }}\nfailure = {{ clock = '{clock}', \
             time_to_failure = {{ distribution = 'exponential', mean_s = 40 }}, \
             time_to_repair = {{ distribution = 'exponential', mean_s = 10 }}"
        );
        let outcome = run(&queue(4.0, &process, 1, None), &measured(20_000)).unwrap();
        number(&outcome, "machines", "server", "down_share")
    };
    let (operating, calendar) = (share("operating"), share("calendar"));
    assert!((operating - 0.25 * 10.0 / 40.0).abs() < 0.003, "{operating}");
    assert!((calendar - 0.2).abs() < 0.005, "{calendar}");
}

#[test]
fn a_constant_work_in_process_is_a_closed_network() {
    // Mean value analysis (Reiser, Lavenberg 1980).
    let demands = [0.5, 0.8, 0.3, 0.6];
    let customers = 6;
    let mut level = [0.0; 4];
    let mut rate = 0.0;
    for n in 1..=customers {
        let wait: Vec<f64> =
            demands.iter().zip(level).map(|(demand, level)| demand * (1.0 + level)).collect();
        rate = f64::from(n) / wait.iter().sum::<f64>();
        level = std::array::from_fn(|at| rate * wait[at]);
    }
    let outcome = run(&closed(&demands, customers), &measured(60_000)).unwrap();
    close("closed network", figure(&outcome, "throughput_per_h"), rate * 3600.0, 0.005);
    for (at, (level, demand)) in level.into_iter().zip(demands).enumerate() {
        let waiting = number(&outcome, "buffers", &format!("b{at}"), "mean_level");
        assert!((waiting + rate * demand - level).abs() < 0.02 * level, "station {at}");
    }
}

/// A row of exponential machines without limits, so many parts in it always.
fn closed(demands: &[f64], customers: u32) -> String {
    let mut text = format!("work_in_process_limit = {customers}\n[[sources]]\nname = 'raw'\noutput = 'b0'\n");
    for (at, demand) in demands.iter().enumerate() {
        let _ = write!(
            text,
            "[[buffers]]\nname = 'b{at}'\n[[machines]]\nname = 'm{at}'\ninput = 'b{at}'\n\
             process = {{ distribution = 'exponential', mean_s = {demand} }}\n"
        );
        if at + 1 < demands.len() {
            let _ = writeln!(text, "output = 'b{}'", at + 1);
        }
    }
    text
}

#[test]
fn one_run_in_batches_gives_an_interval_too() {
    let line = queue(2.0, "distribution = 'exponential', mean_s = 1", 1, None);
    let set = [
        ("parts", json!(400_000)),
        ("replications", json!(1)),
        ("warm_up_s", json!(1000)),
        ("sensitivity", json!(false)),
    ];
    let outcome = run(&line, &set).unwrap();
    assert_eq!(outcome.summary["windows"], json!(20));
    close("batches", figure(&outcome, "lead_time_s"), 2.0, 0.02);
}

/// The tables of exact results, if the test data are there.
#[test]
fn the_tables_of_exact_results() {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there are no tables of exact results");
        return;
    };
    let file = std::path::Path::new(&data).join("simulation/factory/exact_queue_tables.json");
    let exact: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut lines = 0;
    for (name, value) in exact.as_object().unwrap() {
        let Some(inside) = name.strip_prefix("([").and_then(|rest| rest.strip_suffix("])")) else { continue };
        let (machines, buffers) = inside.split_once("], [").unwrap();
        let machines = vec![EXPONENTIAL; machines.split(',').count()];
        let buffers: Vec<usize> = buffers.split(", ").map(|buffer| buffer.parse().unwrap()).collect();
        let outcome = run(&tandem(&machines, &buffers), &measured(50_000)).unwrap();
        close(name, figure(&outcome, "throughput_per_h"), value.as_f64().unwrap() * 3600.0, 0.005);
        lines += 1;
    }
    assert_eq!(lines, 8);
    for case in exact["MMc"].as_array().unwrap().iter().chain(exact["MMcK"].as_array().unwrap()) {
        let of = |name: &str| case[name].as_f64().unwrap();
        let servers = of("c") as usize;
        let capacity = case["K"].as_u64().map(|room| room as usize - servers);
        let process = format!("distribution = 'exponential', mean_s = {}", 1.0 / of("mu"));
        let outcome = run(&queue(1.0 / of("lam"), &process, servers, capacity), &measured(100_000)).unwrap();
        close(&format!("W of {case}"), figure(&outcome, "lead_time_s"), of("W"), 0.05);
        close(&format!("L of {case}"), figure(&outcome, "work_in_process"), of("L"), 0.05);
        if capacity.is_some() {
            close(&format!("lost of {case}"), figure(&outcome, "lost_share"), of("Pblock"), 0.02);
            close(
                &format!("rate of {case}"),
                figure(&outcome, "throughput_per_h"),
                of("thru") * 3600.0,
                0.01,
            );
        }
    }
    let closed_case = &exact["MVA D=[.5,.8,.3,.6] K=20"];
    let demands = [0.5, 0.8, 0.3, 0.6];
    let outcome = run(&closed(&demands, 20), &measured(100_000)).unwrap();
    let rate = closed_case["X"].as_f64().unwrap();
    close("closed network", figure(&outcome, "throughput_per_h"), rate * 3600.0, 0.005);
    for (at, level) in closed_case["Q"].as_array().unwrap().iter().enumerate() {
        let found = number(&outcome, "buffers", &format!("b{at}"), "mean_level") + rate * demands[at];
        let level = level.as_f64().unwrap();
        assert!((found - level).abs() < 0.03 * level, "station {at}: {found}, exact {level}");
    }
}
