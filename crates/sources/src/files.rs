//! Source `files`: a file, the files of a folder, or those of a pattern, as messages.
//!
//! Promise: files are read in the order of their paths, each from its beginning; a message's token is
//! `<path>#<offset>`, the byte after it. A restart goes on at the token: in the same file at that byte, then with the
//! files whose paths sort after it. A file that is added later with a path before the token is not read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use twinlake_contracts::{
    Checkpoint, Component, Error, Message, MessageStream, Position, Result, Source, now_us, suggest,
};

use crate::files_reader::{Raw, read_all};
use crate::replay::parse_line;

/// How a file becomes messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Each line is a message, without its line end; empty lines are none.
    #[default]
    Lines,
    /// The whole file is one message.
    Whole,
}

/// What a line holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LineFormat {
    /// The payload. The origin is the path, the receipt time is now.
    #[default]
    #[serde(rename = "payload")]
    Payload,
    /// `<RFC 3339 time> <topic> <payload>`, a capture of a message stream (see `replay::parse_line`). The origin is the
    /// topic and the receipt time is the line's. A line of another form goes on whole, with the path as its origin and
    /// the time of the line before, so that the decoder rejects it and it is not lost.
    #[serde(rename = "time topic payload")]
    Capture,
}

/// The pace of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// How many seconds of the capture pass in one second: 1 is the original pace, 0 as fast as possible.
    #[serde(default = "default_speed")]
    #[schemars(range(min = 0.0))]
    pub speed: f64,
}

fn default_speed() -> f64 {
    1.0
}

/// Reads files as messages, once, and ends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSettings {
    /// A file, a folder (its own files, not those of folders below; hidden files are left out), or a pattern such as
    /// `incoming/**/*.json`.
    pub path: String,
    /// How a file becomes messages.
    #[serde(default)]
    pub split: Split,
    /// What a line holds.
    #[serde(default)]
    pub line: LineFormat,
    /// Keeps the pace of the time stamps; needs `line = "time topic payload"`. Without it, as fast as possible.
    pub replay: Option<Replay>,
    /// The longest line or file that is taken as a message, in bytes.
    #[serde(default = "default_message")]
    #[schemars(range(min = 1))]
    pub max_message_bytes: u64,
}

fn default_message() -> u64 {
    64 * 1024 * 1024
}

impl Component for FilesSettings {
    const TYPE: &'static str = "files";
    type Product = dyn Source;

    fn build(self) -> Result<Box<dyn Source>> {
        if self.path.is_empty() {
            return Err(Error::config("'path' is empty").with_help("name a file, a folder or a pattern"));
        }
        if is_pattern(&self.path) {
            glob::Pattern::new(&self.path)
                .map_err(|error| Error::config(format!("'{}' is not a pattern: {error}", self.path)))?;
        }
        if self.split == Split::Whole && self.line == LineFormat::Capture {
            return Err(Error::config("'line' says what a line holds, but 'split' is \"whole\"")
                .with_help("leave out 'line', or write split = \"lines\""));
        }
        if let Some(replay) = &self.replay {
            if self.line != LineFormat::Capture {
                return Err(Error::config("'replay' needs the time of each line")
                    .with_help("write line = \"time topic payload\""));
            }
            if !(replay.speed >= 0.0 && replay.speed.is_finite()) {
                return Err(Error::config(format!("'speed' is {}, not a number from 0 up", replay.speed)));
            }
        }
        if self.max_message_bytes == 0 {
            return Err(Error::config("'max_message_bytes' is 0"));
        }
        Ok(Box::new(FilesSource(self)))
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[']) && !Path::new(path).exists()
}

struct FilesSource(FilesSettings);

/// The files that a setting names, in the order of their paths.
fn list(setting: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(setting);
    let visible = |path: &Path| {
        path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) && path.is_file()
    };
    let mut found = if is_pattern(setting) {
        let matches = glob::glob(setting)
            .map_err(|error| Error::config(format!("'{setting}' is not a pattern: {error}")))?;
        let mut files = Vec::new();
        for entry in matches {
            let entry = entry.map_err(|error| Error::permanent("file system", error))?;
            if visible(&entry) {
                files.push(entry);
            }
        }
        files
    } else if path.is_dir() {
        let mut files = Vec::new();
        let entries = std::fs::read_dir(path)
            .map_err(|error| Error::config(format!("the folder '{setting}' cannot be read: {error}")))?;
        for entry in entries {
            let entry = entry?.path();
            if visible(&entry) {
                files.push(entry);
            }
        }
        files
    } else if path.exists() {
        vec![path.to_owned()]
    } else {
        return Err(missing(path));
    };
    if found.is_empty() {
        return Err(Error::config(format!("no file matches '{setting}'"))
            .with_help("paths are relative to the folder that the command runs in"));
    }
    found.sort();
    Ok(found)
}

fn missing(path: &Path) -> Error {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let help = match std::fs::read_dir(parent) {
        Err(_) => format!("there is no folder '{}' either", parent.display()),
        Ok(entries) => {
            let names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            match suggest(&name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{}'?", parent.join(near).display()),
                None => "paths are relative to the folder that the command runs in".to_owned(),
            }
        }
    };
    Error::config(format!("there is no file '{}'", path.display())).with_help(help)
}

/// Splits `<path>#<offset>`.
fn parse_token(token: &str) -> Result<(PathBuf, u64)> {
    token
        .rsplit_once('#')
        .and_then(|(path, offset)| Some((PathBuf::from(path), offset.parse().ok()?)))
        .ok_or_else(|| Error::internal(format!("'{token}' is not a position in files")))
}

#[async_trait]
impl Source for FilesSource {
    async fn open(&mut self, resume: &Checkpoint) -> Result<MessageStream> {
        let settings = self.0.clone();
        let start = match &resume.0 {
            Some(position) if !position.token.is_empty() => Some(parse_token(&position.token)?),
            _ => None,
        };
        let files = {
            let path = settings.path.clone();
            tokio::task::spawn_blocking(move || list(&path)).await.map_err(Error::internal)??
        };
        let (out, mut raws) = mpsc::channel::<Result<Raw>>(1024);
        let (split, limit) = (settings.split, settings.max_message_bytes);
        tokio::task::spawn_blocking(move || {
            // The error of a receiver that has gone needs no word: nobody reads any more.
            let mut send = |raw: Result<Raw>| out.blocking_send(raw).is_ok();
            if let Err(error) = read_all(&files, start.as_ref(), split, limit, &mut send) {
                send(Err(error));
            }
        });
        let mut ordinal = resume.ordinal();
        Ok(Box::pin(async_stream::stream! {
            let mut pace = Pace::new(settings.replay);
            let mut last_us = None;
            while let Some(raw) = raws.recv().await {
                let raw = match raw {
                    Ok(raw) => raw,
                    Err(error) => {
                        yield Err(error);
                        break;
                    }
                };
                let (payload, origin, received_at_us) = if settings.line == LineFormat::Capture {
                    if let Some((payload, topic, time_us)) = capture(&raw.bytes) {
                        pace.wait(time_us).await;
                        last_us = Some(time_us);
                        (payload, topic.into(), time_us)
                    } else {
                        (raw.bytes, raw.path, last_us.unwrap_or_else(now_us))
                    }
                } else {
                    (raw.bytes, raw.path, now_us())
                };
                ordinal += 1;
                yield Ok(Message {
                    payload,
                    origin,
                    position: Position { ordinal, token: raw.token },
                    received_at_us,
                });
            }
        }))
    }

    async fn acknowledge(&mut self, _upto: &Checkpoint) -> Result<()> {
        Ok(()) // files stay where they are; the checkpoint itself is the memory
    }

    fn bounded(&self) -> bool {
        true
    }
}

fn capture(bytes: &Bytes) -> Option<(Bytes, String, i64)> {
    let line = std::str::from_utf8(bytes).ok()?;
    let found = parse_line(line).ok()?;
    Some((bytes.slice_ref(found.payload.as_bytes()), found.topic.to_owned(), found.time_us))
}

/// Holds messages back so that their spacing in time is that of the capture, divided by the speed.
struct Pace {
    speed: f64,
    first: Option<(Instant, i64)>,
}

impl Pace {
    fn new(replay: Option<Replay>) -> Self {
        Self { speed: replay.map_or(0.0, |replay| replay.speed), first: None }
    }

    async fn wait(&mut self, time_us: i64) {
        if self.speed <= 0.0 {
            return;
        }
        let (start, first_us) = *self.first.get_or_insert_with(|| (Instant::now(), time_us));
        let after_s = time_us.saturating_sub(first_us).max(0) as f64 / 1e6 / self.speed;
        if let Ok(after) = Duration::try_from_secs_f64(after_s) {
            tokio::time::sleep_until(start + after).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::json;

    use super::*;

    fn source(settings: serde_json::Value) -> Box<dyn Source> {
        crate::registry().build("files", settings).expect("settings")
    }

    async fn read(settings: serde_json::Value, resume: Checkpoint) -> Vec<Message> {
        let stream = source(settings).open(&resume).await.expect("open");
        stream.map(|message| message.expect("message")).collect().await
    }

    fn texts(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|m| std::str::from_utf8(&m.payload).expect("text")).collect()
    }

    #[tokio::test]
    async fn reads_a_folder_in_order_and_resumes_after_any_message() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("b.txt"), "b1\r\n\nb2").expect("write");
        std::fs::write(folder.path().join("a#1.txt"), "a1\na2\n").expect("write");
        std::fs::write(folder.path().join(".hidden"), "no").expect("write");
        std::fs::write(folder.path().join("c.txt"), "").expect("write");
        for path in [folder.path().to_path_buf(), folder.path().join("*.txt")] {
            let settings = json!({"path": path});
            let all = read(settings.clone(), Checkpoint::default()).await;
            assert_eq!(texts(&all), ["a1", "a2", "b1", "b2"]);
            assert_eq!(all.iter().map(|m| m.position.ordinal).collect::<Vec<_>>(), [1, 2, 3, 4]);
            for after in 0..all.len() {
                let resume = Checkpoint(Some(all[after].position.clone()));
                let rest = read(settings.clone(), resume).await;
                let expected: Vec<_> = all[after + 1..].iter().map(|m| (&m.payload, &m.position)).collect();
                assert_eq!(rest.iter().map(|m| (&m.payload, &m.position)).collect::<Vec<_>>(), expected);
            }
        }
        let whole = read(json!({"path": folder.path(), "split": "whole"}), Checkpoint::default()).await;
        assert_eq!(texts(&whole), ["a1\na2\n", "b1\r\n\nb2", ""]);
        let resume = Checkpoint(Some(whole[0].position.clone()));
        let rest = read(json!({"path": folder.path(), "split": "whole"}), resume).await;
        assert_eq!(
            rest,
            whole[1..]
                .iter()
                .zip(&rest)
                .map(|(m, r)| Message { received_at_us: r.received_at_us, ..m.clone() })
                .collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn missing_and_damaged_inputs_are_clear_errors() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("vehicles.txt"), "one\n").expect("write");
        let open = |path: PathBuf, resume: Checkpoint| async move {
            source(json!({"path": path, "max_message_bytes": 8})).open(&resume).await
        };
        let error =
            open(folder.path().join("vehicels.txt"), Checkpoint::default()).await.err().expect("error");
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains("vehicles.txt"), "{error}");
        assert!(open(folder.path().join("*.csv"), Checkpoint::default()).await.is_err());
        let path = folder.path().join("vehicles.txt");
        let token = format!("{}#99", path.display());
        let beyond = Checkpoint(Some(Position { ordinal: 1, token }));
        let mut stream = open(path.clone(), beyond).await.expect("open");
        let error = stream.next().await.expect("item").expect_err("shorter than before");
        assert!(error.to_string().contains("shorter"), "{error}");
        std::fs::write(&path, "one\n0123456789\n").expect("write");
        let items: Vec<_> = open(path, Checkpoint::default()).await.expect("open").collect().await;
        assert_eq!(items.len(), 2);
        assert!(items[1].as_ref().expect_err("too long").to_string().contains("byte 4"));
    }

    #[tokio::test]
    async fn a_capture_gives_topics_and_times_and_keeps_other_lines_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("capture.txt");
        let lines = "2018-10-09T04:32:52Z /a/ä b {\"x\":1}\nnot a capture line\n2018-10-09T04:32:54Z /c {}\n";
        std::fs::write(&path, lines).expect("write");
        let settings = json!({"path": path, "line": "time topic payload", "replay": {"speed": 0}});
        let messages = read(settings.clone(), Checkpoint::default()).await;
        assert_eq!(texts(&messages), ["{\"x\":1}", "not a capture line", "{}"]);
        assert_eq!(&*messages[0].origin, "/a/ä b");
        assert_eq!(messages[0].received_at_us, 1_539_059_572_000_000);
        assert_eq!(messages[1].received_at_us, 1_539_059_572_000_000);
        assert_eq!(*messages[1].origin, *path.to_string_lossy());
        assert_eq!(messages, read(settings, Checkpoint::default()).await, "the same bytes again");
    }

    #[tokio::test]
    async fn a_replay_keeps_the_pace() {
        let mut pace = Pace::new(Some(Replay { speed: 10.0 }));
        let start = Instant::now();
        let base = 1_539_059_572_000_000;
        for (at_us, least_ms) in [(0, 0), (1_000_000, 100), (500_000, 100), (2_000_000, 200)] {
            pace.wait(base + at_us).await;
            let elapsed_ms = start.elapsed().as_millis();
            assert!((least_ms..least_ms + 95).contains(&elapsed_ms), "{elapsed_ms} ms, not {least_ms}");
        }
    }
}
