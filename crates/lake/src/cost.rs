//! Who runs this process, and what runs in it cost.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many ticks a second the kernel counts CPU time in (`USER_HZ`, 100 on every Linux).
const TICKS_A_SECOND: i64 = 100;

static WHO: OnceLock<String> = OnceLock::new();

/// Says who runs this process, for `meta.runs`. The first one who says it holds.
pub fn set_who(name: &str) {
    // Said twice by tests that open several lakes in one process: the first holds.
    let _ = WHO.set(name.to_owned());
}

/// Who runs this process: the name given with [`set_who`], else `user@host` as the environment tells it.
pub fn who() -> String {
    if let Some(name) = WHO.get() {
        return name.clone();
    }
    let variable =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let user = variable(&["USER", "LOGNAME", "USERNAME"]).unwrap_or_else(|| "unknown".to_owned());
    let host = variable(&["HOSTNAME", "COMPUTERNAME"])
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty());
    match host {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}

/// The CPU time of this process so far, all threads, user and system, in microseconds; steps of 10 ms. `None` where the
/// system does not tell it in `/proc`.
fn process_cpu_us() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in parentheses and may hold anything; the fields follow the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<i64>().ok();
    Some((ticks(11)? + ticks(12)?) * (1_000_000 / TICKS_A_SECOND))
}

/// CPU time divided among the runs that are open.
#[derive(Default)]
struct Accounts {
    seen_us: i64,
    next: u64,
    open: BTreeMap<u64, i64>,
}

static ACCOUNTS: Mutex<Option<Accounts>> = Mutex::new(None);

impl Accounts {
    /// Gives each open run its share of what was used since the last look.
    fn settle(&mut self, now_us: i64) {
        let used = (now_us - self.seen_us).max(0);
        self.seen_us = now_us;
        let runs = self.open.len() as i64;
        for (at, own) in self.open.values_mut().enumerate() {
            // Whole microseconds: the first ones get what is left over.
            *own += used / runs + i64::from((at as i64) < used % runs);
        }
    }
}

/// Measures the CPU time of a run, from its making to its end. The process' time is divided equally among the runs that
/// are open at the same time, so that the sum over runs is never more than what was used.
#[derive(Debug)]
pub struct CpuMeter {
    account: u64,
}

impl CpuMeter {
    /// Opens an account.
    pub fn start() -> Self {
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = accounts.get_or_insert_default();
        if let Some(now_us) = process_cpu_us() {
            accounts.settle(now_us);
        }
        let account = accounts.next;
        accounts.next += 1;
        accounts.open.insert(account, 0);
        Self { account }
    }

    /// Microseconds of CPU time so far; `None` where the system does not tell.
    pub fn cpu_us(&self) -> Option<i64> {
        let now_us = process_cpu_us()?;
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = accounts.as_mut()?;
        accounts.settle(now_us);
        accounts.open.get(&self.account).copied()
    }
}

impl Drop for CpuMeter {
    fn drop(&mut self) {
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(accounts) = accounts.as_mut() {
            if let Some(now_us) = process_cpu_us() {
                accounts.settle(now_us);
            }
            accounts.open.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_divided_among_the_runs_that_are_open() {
        let mut accounts = Accounts { seen_us: 100, ..Accounts::default() };
        accounts.open.insert(0, 0);
        accounts.settle(200);
        accounts.open.insert(1, 0);
        accounts.settle(401);
        assert_eq!(accounts.open.values().copied().collect::<Vec<_>>(), [201, 100]);
        accounts.settle(300); // a clock that goes back gives nothing
        assert_eq!(accounts.open.values().sum::<i64>(), 301);
    }

    #[test]
    fn somebody_runs_it() {
        assert!(!who().is_empty());
    }
}
