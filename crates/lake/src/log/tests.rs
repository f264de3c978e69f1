//! The log's promises, also while the disk fails and after every kind of crash.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use twinlake_contracts::Retry;

use super::disk::SegmentFile;
use super::*;

fn message(ordinal: u64) -> Message {
    Message {
        payload: Bytes::from(format!("payload {ordinal}")),
        origin: "topic/a".into(),
        position: Position { ordinal, token: format!("file#{ordinal}") },
        received_at_us: ordinal as i64,
    }
}

fn open(directory: &Path) -> Result<DurableLog> {
    open_with(directory, 1 << 20)
}

fn open_with(directory: &Path, segment_bytes: u64) -> Result<DurableLog> {
    DurableLog::open(directory, "test", 0, &LogOptions { segment_bytes, queue: 64 })
}

async fn ordinals(log: &DurableLog) -> Vec<u64> {
    let messages = log.read(0, 1000).await.unwrap();
    for (logged, next) in messages.iter().zip(messages.iter().skip(1)) {
        assert_eq!(logged.sequence + 1, next.sequence);
    }
    messages.iter().map(|logged| logged.message.position.ordinal).collect()
}

/// A disk that fails on command.
#[derive(Clone, Default)]
struct Faults {
    /// Bytes that still fit; 0 means no limit.
    room: Arc<AtomicU64>,
    sync_fails: Arc<AtomicBool>,
    truncate_fails: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
}

struct FaultyDisk(Faults);

struct FaultyFile {
    inner: Box<dyn SegmentFile>,
    faults: Faults,
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        let inner = LocalDisk.create(path, header)?;
        Ok(Box::new(FaultyFile { inner, faults: self.0.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let inner = LocalDisk.open(path)?;
        Ok(Box::new(FaultyFile { inner, faults: self.0.clone() }))
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = self.faults.room.load(Ordering::SeqCst);
        if room > 0 && (bytes.len() as u64) > room {
            self.inner.write_at(offset, &bytes[..room as usize])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        // Long enough that callers meet while a sync runs.
        std::thread::sleep(Duration::from_millis(5));
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: the device is gone"));
        }
        self.inner.sync()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if self.faults.truncate_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: cannot cut"));
        }
        self.inner.truncate(bytes)
    }
}

fn open_faulty(directory: &Path, faults: &Faults) -> DurableLog {
    let options = LogOptions { segment_bytes: 1 << 20, queue: 64 };
    DurableLog::open_on(Box::new(FaultyDisk(faults.clone())), directory, "test", 0, &options).unwrap()
}

#[tokio::test]
async fn gives_back_what_it_took_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let odd = Message {
        payload: Bytes::from_static(b"\x00\xff\x9eTL\x01"),
        origin: "Mäkelänkatu / 2".into(),
        position: Position { ordinal: 3, token: String::new() },
        received_at_us: -1,
    };
    {
        let log = open(folder.path()).unwrap();
        assert_eq!((log.last_sequence(), log.checkpoint("a")), (0, Checkpoint(None)));
        assert_eq!(log.append("a", vec![message(1), message(2)]).await.unwrap(), 2);
        assert_eq!(log.append("b", vec![odd.clone()]).await.unwrap(), 3);
        assert_eq!(log.append("a", vec![]).await.unwrap(), 3);
    }
    let log = open(folder.path()).unwrap();
    assert_eq!(log.last_sequence(), 3);
    assert_eq!(log.checkpoint("a").ordinal(), 2);
    assert_eq!(log.checkpoint("b"), Checkpoint(Some(odd.position.clone())));
    let all = log.read(0, 10).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!((&*all[2].source, &all[2].message), ("b", &odd));
    assert_eq!(log.read(1, 1).await.unwrap()[0].message, message(2));
    assert_eq!(log.read(3, 10).await.unwrap(), vec![]);
    assert_eq!(log.append("a", vec![message(4)]).await.unwrap(), 4);
}

#[tokio::test]
async fn reads_across_many_segments_from_any_place() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_with(folder.path(), 400).unwrap();
    for ordinal in 1..=60 {
        log.append("a", vec![message(ordinal)]).await.unwrap();
    }
    for after in [0, 1, 17, 59] {
        for limit in [1, 7, 100] {
            let read: Vec<u64> = log.read(after, limit).await.unwrap().iter().map(|l| l.sequence).collect();
            let expected: Vec<u64> = (after + 1..=60).take(limit).collect();
            assert_eq!(read, expected, "after {after}, limit {limit}");
        }
    }
    drop(log);
    let log = open_with(folder.path(), 400).unwrap();
    assert_eq!(ordinals(&log).await, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file_name(1));
    let whole_two = {
        let log = open(folder.path()).unwrap();
        log.append("a", vec![message(1)]).await.unwrap();
        log.append("a", vec![message(2)]).await.unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        log.append("a", vec![message(3)]).await.unwrap();
        length as usize
    };
    let bytes = std::fs::read(&path).unwrap();
    for cut in whole_two..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let log = open(folder.path()).unwrap();
        assert_eq!(log.last_sequence(), 2, "cut at {cut}");
        assert_eq!(log.checkpoint("a").ordinal(), 2, "cut at {cut}");
        log.append("a", vec![message(33)]).await.unwrap();
        assert_eq!(ordinals(&log).await, [1, 2, 33], "cut at {cut}");
    }
    // What a power cut leaves: the length is there, the bytes are not.
    for from in whole_two..bytes.len() {
        let mut zeroed = bytes.clone();
        zeroed[from..].fill(0);
        zeroed.extend_from_slice(&[0; 4096]);
        std::fs::write(&path, &zeroed).unwrap();
        let log = open(folder.path()).unwrap();
        let last = log.last_sequence();
        assert!(
            last == 2 || (last == 3 && bytes[from..].iter().all(|b| *b == 0)),
            "zeroed from {from}: {last}"
        );
    }
}

#[tokio::test]
async fn damage_before_acknowledged_records_is_an_error_and_damage_in_the_last_group_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file_name(1));
    let start = {
        let log = open(folder.path()).unwrap();
        let start = std::fs::metadata(&path).unwrap().len() as usize;
        log.append("a", vec![message(1), message(2)]).await.unwrap();
        start
    };
    let one_group = std::fs::read(&path).unwrap();
    // A group whose blocks reached the disk out of order: its second record is whole, its first is not.
    let mut damaged = one_group.clone();
    damaged[start + 20] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(open(folder.path()).unwrap().last_sequence(), 0);
    // The same damage with a later group behind it: record 1 had been acknowledged.
    std::fs::write(&path, &one_group).unwrap();
    open(folder.path()).unwrap().append("a", vec![message(3)]).await.unwrap();
    let mut damaged = std::fs::read(&path).unwrap();
    for at in [start, start + 5, start + 9, start + 20] {
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = open(folder.path()).err().unwrap();
        assert!(error.to_string().contains(&format!("damaged at byte {start}")), "{error}");
        assert_eq!(error.retry(), Retry::Never);
        damaged[at] ^= 1;
    }
}

#[tokio::test]
async fn damage_in_an_older_segment_is_an_error_on_read() {
    let folder = tempfile::tempdir().unwrap();
    {
        let log = open_with(folder.path(), 1).unwrap();
        for ordinal in 1..=3 {
            log.append("a", vec![message(ordinal)]).await.unwrap();
        }
    }
    let path = folder.path().join(file_name(1));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let log = open_with(folder.path(), 1).unwrap();
    assert_eq!(log.read(1, 10).await.unwrap().len(), 2);
    assert!(log.read(0, 10).await.unwrap_err().to_string().contains("checksum"));
    drop(log);
    bytes.pop();
    std::fs::write(&path, &bytes).unwrap();
    assert!(open_with(folder.path(), 1).err().unwrap().to_string().contains("shorter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_meet_share_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let log = Arc::new(open_faulty(folder.path(), &faults));
    let before = faults.syncs.load(Ordering::SeqCst);
    let callers: Vec<_> = (1..=50)
        .map(|ordinal| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append("a", vec![message(ordinal)]).await.unwrap() })
        })
        .collect();
    let mut sequences = Vec::new();
    for caller in callers {
        sequences.push(caller.await.unwrap());
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=50).collect::<Vec<_>>());
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs < 25, "50 appends took {syncs} syncs");
    assert_eq!(ordinals(&log).await.len(), 50);
}

#[tokio::test]
async fn release_deletes_whole_segments_and_keeps_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let segments = || std::fs::read_dir(folder.path()).unwrap().count() - 1;
    {
        let log = open_with(folder.path(), 1).unwrap();
        log.append("quiet", vec![message(77)]).await.unwrap();
        for ordinal in 1..=4 {
            log.append("a", vec![message(ordinal)]).await.unwrap();
        }
        assert_eq!(segments(), 5);
        log.release(0).await.unwrap();
        assert_eq!(segments(), 5);
        log.release(3).await.unwrap();
        assert_eq!(segments(), 2);
        assert_eq!(ordinals(&log).await, [3, 4]);
        log.release(5).await.unwrap();
        assert_eq!(segments(), 1, "the newest segment stays");
    }
    let log = open_with(folder.path(), 1).unwrap();
    assert_eq!(log.last_sequence(), 5);
    assert_eq!(log.checkpoint("quiet").ordinal(), 77);
    assert_eq!(log.checkpoint("a").ordinal(), 4);
    assert_eq!(log.append("a", vec![message(5)]).await.unwrap(), 6);
}

#[tokio::test]
async fn one_process_holds_a_log_and_the_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(error.to_string().contains(&format!("held by process {}", std::process::id())), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    drop(log);
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_the_log_goes_on_when_there_is_room() {
    for truncate_fails in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        {
            let log = open_faulty(folder.path(), &faults);
            log.append("a", vec![message(1)]).await.unwrap();
            faults.room.store(50, Ordering::SeqCst);
            faults.truncate_fails.store(truncate_fails, Ordering::SeqCst);
            for _ in 0..3 {
                let error = log.append("a", vec![message(2)]).await.unwrap_err();
                assert_eq!(error.retry(), Retry::Backoff, "{error}");
                assert_eq!((log.last_sequence(), log.checkpoint("a").ordinal()), (1, 1));
                assert_eq!(ordinals(&log).await, [1]);
            }
            faults.room.store(0, Ordering::SeqCst);
            assert_eq!(log.append("a", vec![message(2)]).await.unwrap(), 2);
            assert_eq!(ordinals(&log).await, [1, 2]);
        }
        let log = open(folder.path()).unwrap();
        assert_eq!(ordinals(&log).await, [1, 2]);
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_of_it_is_claimed() {
    for (before, truncate_fails) in [(0, false), (0, true), (2, false), (2, true)] {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let kept: Vec<u64> = (1..=before).collect();
        {
            let log = open_faulty(folder.path(), &faults);
            for ordinal in &kept {
                log.append("a", vec![message(*ordinal)]).await.unwrap();
            }
            faults.sync_fails.store(true, Ordering::SeqCst);
            faults.truncate_fails.store(truncate_fails, Ordering::SeqCst);
            let error = log.append("a", vec![message(90)]).await.unwrap_err();
            assert_eq!(error.retry(), Retry::Backoff, "{error}");
            assert_eq!((log.last_sequence(), ordinals(&log).await), (before, kept.clone()));
            faults.sync_fails.store(false, Ordering::SeqCst);
            assert_eq!(log.append("a", vec![message(91)]).await.unwrap(), before + 1);
            assert_eq!(log.append("a", vec![message(92)]).await.unwrap(), before + 2);
        }
        let log = open(folder.path()).unwrap();
        let expected: Vec<u64> = kept.into_iter().chain([91, 92]).collect();
        assert_eq!(ordinals(&log).await, expected, "before {before}, truncate fails {truncate_fails}");
    }
}

#[tokio::test]
async fn a_new_log_starts_after_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let options = LogOptions::default();
    {
        let log = DurableLog::open(folder.path(), "test", 41, &options).unwrap();
        assert_eq!(log.last_sequence(), 41);
        assert_eq!(log.append("a", vec![message(1)]).await.unwrap(), 42);
    }
    let log = DurableLog::open(folder.path(), "test", 1000, &options).unwrap();
    assert_eq!(log.last_sequence(), 42, "the floor is for new logs only");
}

/// A real full disk: a small file system of its own. Needs the right to mount; says so when it has not.
#[tokio::test]
async fn a_real_full_file_system_is_survived() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "twinlake-test"])
        .arg(folder.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("SKIPPED a_real_full_file_system_is_survived: this user may not mount a file system");
        return;
    }
    let large = || Message { payload: Bytes::from(vec![7; 40_000]), ..message(1) };
    let result = async {
        let log = open(folder.path())?;
        let mut taken = 0;
        let error = loop {
            match log.append("a", vec![large()]).await {
                Ok(_) if taken > 10 => return Err(Error::internal("the disk never filled")),
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.retry(), Retry::Backoff, "{error}");
        assert_eq!(log.append("a", vec![message(2)]).await?, taken + 1, "a small one still fits");
        drop(log);
        let log = open(folder.path())?;
        assert_eq!(log.last_sequence(), taken + 1);
        assert_eq!(log.read(0, 100).await?.len() as u64, taken + 1);
        Ok(())
    }
    .await;
    let unmounted = Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
    result.unwrap();
}
